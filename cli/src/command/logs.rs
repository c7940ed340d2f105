//! `logs`.

use clap::Args;
use docker_api::container::ContainerInspect;
use docker_api::frame::Decoder;
use http::Method;
use http_body_util::BodyExt;

use super::Context;
use crate::client::{demultiplex, empty, escape, query};
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Show extra details provided to logs
    #[arg(long)]
    details: bool,
    /// Follow log output
    #[arg(short = 'f', long)]
    follow: bool,
    /// Show logs since timestamp or relative (e.g. "42m" for 42 minutes)
    #[arg(long, default_value = "", hide_default_value = true)]
    since: String,
    /// Number of lines to show from the end of the logs
    #[arg(short = 'n', long, default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show timestamps
    #[arg(short = 't', long)]
    timestamps: bool,
    /// Show logs before a timestamp or relative
    #[arg(long, default_value = "", hide_default_value = true)]
    until: String,
    container: String,
}

impl Logs {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let state: ContainerInspect =
            context.client.get(&format!("/containers/{}/json", escape(&self.container))).await?;
        let flag = |on: bool| if on { "1" } else { "" };
        let named = |name: &'static str| {
            move |problem: CliError| {
                CliError::Usage(format!("invalid value for {name:?}: {problem}"))
            }
        };
        let since = moment(&self.since).map_err(named("since"))?;
        let until = moment(&self.until).map_err(named("until"))?;
        let query = query(&[
            ("stdout", "1"),
            ("stderr", "1"),
            ("details", flag(self.details)),
            ("follow", flag(self.follow)),
            ("timestamps", flag(self.timestamps)),
            ("tail", &self.tail),
            ("since", &since),
            ("until", &until),
        ]);
        let path = format!("/containers/{}/logs{query}", state.id);
        let mut body = context.client.send(Method::GET, &path, empty()).await?.into_body();
        let mut decoder = Decoder::default();
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(CliError::Http)?.into_data() else { continue };
            if state.config.tty {
                context.ui.out.write_all(&piece)?;
            } else {
                demultiplex(&mut decoder, &piece, context.ui)?;
            }
            context.ui.out.flush()?;
        }
        Ok(0)
    }
}

/// A moment as the API takes it: unix seconds with a fraction. Relative ones count from now.
pub(super) fn moment(text: &str) -> Result<String, CliError> {
    if text.is_empty() {
        return Ok(String::new());
    }
    if docker_api::time::parse_unix(text).is_some() {
        return Ok(text.to_owned());
    }
    if let Some(nanoseconds) = docker_api::time::parse_duration(text) {
        let now = jiff::Timestamp::now().as_nanosecond() - i128::from(nanoseconds);
        return Ok(format!(
            "{}.{:09}",
            now.div_euclid(1_000_000_000),
            now.rem_euclid(1_000_000_000)
        ));
    }
    if let Some((seconds, nanoseconds)) = docker_api::time::parse_rfc3339(text) {
        return Ok(format!("{seconds}.{nanoseconds:09}"));
    }
    let civil = text
        .parse::<jiff::civil::DateTime>()
        .or_else(|_| text.parse::<jiff::civil::Date>().map(jiff::civil::DateTime::from))
        .ok()
        .and_then(|time| time.to_zoned(jiff::tz::TimeZone::system()).ok());
    match civil {
        Some(time) => Ok(format!("{}.000000000", time.timestamp().as_second())),
        None => {
            Err(CliError::Usage(format!("failed to parse value as time or duration: {text:?}")))
        }
    }
}
