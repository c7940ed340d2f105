//! `events`, `version`, `info`.

use clap::Args;
use docker_api::event::Event;
use docker_api::system;
use http::Method;
use http_body_util::BodyExt;

use super::{Context, flags, list, logs};
use crate::client::{Lines, empty, query};
use crate::error::CliError;
use crate::format::template::{Format, Value, Words};
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Filter output based on conditions provided
    #[arg(short = 'f', long, value_parser = flags::filter)]
    filter: Vec<String>,
    /// Format output using a custom template
    #[arg(long)]
    format: Option<String>,
    /// Show all events created since timestamp
    #[arg(long, default_value = "", hide_default_value = true)]
    since: String,
    /// Stream events until this timestamp
    #[arg(long, default_value = "", hide_default_value = true)]
    until: String,
}

impl Events {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let format = match self.format.as_deref() {
            None | Some("") => None,
            Some(format) => Some(Format::parse(format, EVENT_WORDS)?),
        };
        let query = query(&[
            ("since", &logs::moment(&self.since)?),
            ("until", &logs::moment(&self.until)?),
            ("filters", &list::filters(&self.filter)),
        ]);
        let answer = context.client.send(Method::GET, &format!("/events{query}"), empty()).await?;
        let mut body = answer.into_body();
        let mut lines = Lines::default();
        while let Some(frame) = body.frame().await {
            let Ok(piece) = frame.map_err(CliError::Http)?.into_data() else { continue };
            lines.push(&piece)?;
            while let Some(line) = lines.next_line() {
                if line.trim_ascii().is_empty() {
                    continue;
                }
                let text = match &format {
                    Some(format) => {
                        let value = Value::from_json(&line).map_err(CliError::Answer)?;
                        format.one(&value)?
                    }
                    None => sentence(&docker_api::from_json(&line).map_err(CliError::Answer)?),
                };
                context.ui.say(&text)?;
            }
            context.ui.out.flush()?;
        }
        Ok(0)
    }
}

const EVENT_WORDS: Words = Words {
    name: "",
    parsing: "Error parsing format: ",
    executing: "Error parsing format: ",
    code: 64,
    type_name: "*events.Message",
};

fn sentence(event: &Event) -> String {
    let (seconds, nanoseconds) = if event.time_nano != 0 {
        (event.time_nano.div_euclid(1_000_000_000), event.time_nano.rem_euclid(1_000_000_000))
    } else {
        (event.time, 0)
    };
    let time = jiff::Timestamp::new(seconds, i32::try_from(nanoseconds).unwrap_or(0))
        .map(|time| {
            time.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%Y-%m-%dT%H:%M:%S.%9f%:z")
                .to_string()
        })
        .unwrap_or_default();
    let attributes: Vec<String> =
        event.actor.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut text = format!("{time} {} {} {}", event.kind, event.action, event.actor.id);
    if !attributes.is_empty() {
        text.push_str(&format!(" ({})", attributes.join(", ")));
    }
    text
}

/// Compat: the engine's, of all components, in words.
fn tell_build_time(server: &mut Value) {
    let Some(Value::List(components)) = member(server, "Components") else { return };
    for component in components {
        let is_engine =
            matches!(member(component, "Name"), Some(Value::Text(name)) if name == "Engine");
        let details = member(component, "Details").filter(|_| is_engine);
        if let Some(Value::Text(time)) = details.and_then(|details| member(details, "BuildTime")) {
            *time = in_words(time);
        }
    }
}

fn member<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let Value::Map(members) = value else { return None };
    members.iter_mut().find(|(own, _)| own == name).map(|(_, value)| value)
}

/// A moment as C writes one.
fn in_words(rfc3339: &str) -> String {
    rfc3339.parse::<jiff::Timestamp>().map_or_else(
        |_| rfc3339.to_owned(),
        |time| time.strftime("%a %b %e %H:%M:%S %Y").to_string(),
    )
}

#[derive(Debug, Args)]
pub(crate) struct Version {
    /// Format output using a custom template
    #[arg(short = 'f', long)]
    format: Option<String>,
}

impl Version {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let format = match self.format.as_deref() {
            None | Some("") => None,
            Some(format) => Some(Format::parse(format, VERSION_WORDS)?),
        };
        let text = context.client.bytes("/version").await?;
        let server: system::Version = docker_api::from_json(&text).map_err(CliError::Answer)?;
        let client = client_facts(context.client.version());
        if let Some(format) = format {
            let mut value = Value::from_json(&text).map_err(CliError::Answer)?;
            tell_build_time(&mut value);
            let both = Value::Map(vec![("Client".into(), client), ("Server".into(), value)]);
            let text = format.one(&both);
            // Compat: the line of what could not be printed is empty.
            context.ui.say(text.as_deref().unwrap_or_default())?;
            return text.map(|_| 0);
        }
        print_client(&client, context.ui)?;
        let mut text = format!("\nServer: {}\n", server.platform.name);
        let engine = server.components.iter().find(|component| component.name == "Engine");
        let detail = |name: &str| {
            engine
                .and_then(|engine| engine.details.as_ref())
                .and_then(|details| details.get(name).cloned())
                .unwrap_or_default()
        };
        text.push_str(&format!(
            " Engine:\n  Version:          {}\n  API version:      {} (minimum version {})\n  Go version:       {}\n  Git commit:       {}\n  Built:            {}\n  OS/Arch:          {}/{}\n  Experimental:     {}\n",
            server.version, server.api_version, server.min_api_version, server.go_version,
            server.git_commit, in_words(&detail("BuildTime")), server.os, server.arch,
            server.experimental.unwrap_or(false),
        ));
        for component in server.components.iter().filter(|component| component.name != "Engine") {
            let commit = component
                .details
                .as_ref()
                .and_then(|details| details.get("GitCommit").cloned())
                .unwrap_or_default();
            text.push_str(&format!(
                " {}:\n  Version:          {}\n  GitCommit:        {commit}\n",
                component.name, component.version
            ));
        }
        write!(context.ui.out, "{text}")?;
        Ok(0)
    }

    /// Half of the answer, when there is no daemon.
    pub(super) fn without_server(&self, ui: &mut Ui, problem: CliError) -> Result<u8, CliError> {
        if self.format.is_none() {
            print_client(&client_facts("1.51"), ui)?;
        }
        Err(problem)
    }
}

const VERSION_WORDS: Words = Words {
    name: "version",
    parsing: "template parsing error: ",
    executing: "",
    code: 64,
    type_name: "system.clientVersion",
};

fn client_facts(api: &str) -> Value {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let facts = [
        ("Version", env!("CARGO_PKG_VERSION")),
        ("ApiVersion", api),
        ("DefaultAPIVersion", "1.51"),
        ("GitCommit", "docker-rs"),
        ("GoVersion", "none"),
        ("Os", "linux"),
        ("Arch", architecture),
        ("BuildTime", ""),
        ("Context", "default"),
    ];
    let platform = Value::Map(vec![("Name".into(), Value::text("docker-rs"))]);
    let mut members = vec![("Platform".to_owned(), platform)];
    members.extend(facts.map(|(name, value)| (name.to_owned(), Value::text(value))));
    Value::Map(members)
}

fn print_client(client: &Value, ui: &mut Ui) -> Result<(), CliError> {
    let text = |name: &str| client.get(name).map(ToString::to_string).unwrap_or_default();
    write!(
        ui.out,
        "Client: docker-rs\n Version:           {}\n API version:       {}\n OS/Arch:           {}/{}\n Context:           {}\n",
        text("Version"),
        text("ApiVersion"),
        text("Os"),
        text("Arch"),
        text("Context"),
    )?;
    Ok(())
}

#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Format output using a custom template
    #[arg(short = 'f', long)]
    format: Option<String>,
}

const INFO_WORDS: Words = Words {
    name: "",
    parsing: "template parsing error: ",
    executing: "",
    code: 64,
    type_name: "system.dockerInfo",
};

impl Info {
    /// What is known without a daemon.
    pub(super) fn without_server(&self, ui: &mut Ui, problem: CliError) -> Result<u8, CliError> {
        if self.format.is_none() {
            write!(
                ui.out,
                "Client: docker-rs\n Version:    {}\n Context:    default\n\nServer:\n",
                env!("CARGO_PKG_VERSION")
            )?;
        }
        Err(problem)
    }

    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let format = match self.format.as_deref() {
            None | Some("") => None,
            Some(format) => Some(Format::parse(format, INFO_WORDS)?),
        };
        let text = context.client.bytes("/info").await?;
        if let Some(format) = format {
            let mut value = Value::from_json(&text).map_err(CliError::Answer)?;
            if let Value::Map(members) = &mut value {
                members.push(("ClientInfo".to_owned(), client_facts(context.client.version())));
            }
            let text = format.one(&value);
            context.ui.say(text.as_deref().unwrap_or_default())?;
            return text.map(|_| 0);
        }
        let info: system::Info = docker_api::from_json(&text).map_err(CliError::Answer)?;
        let mut text = format!(
            "Client: docker-rs\n Version:    {}\n Context:    default\n\nServer:\n Containers: {}\n  Running: {}\n  Paused: {}\n  Stopped: {}\n Images: {}\n Server Version: {}\n Storage Driver: {}\n",
            env!("CARGO_PKG_VERSION"),
            info.containers,
            info.containers_running,
            info.containers_paused,
            info.containers_stopped,
            info.images,
            info.server_version,
            info.driver,
        );
        for [name, value] in &info.driver_status {
            text.push_str(&format!("  {name}: {value}\n"));
        }
        let runtimes: Vec<&str> = info.runtimes.keys().map(String::as_str).collect();
        text.push_str(&format!(
            " Logging Driver: {}\n Cgroup Driver: {}\n Cgroup Version: {}\n Plugins:\n  Volume: {}\n  Network: {}\n  Log: {}\n Runtimes: {}\n Default Runtime: {}\n Security Options:\n",
            info.logging_driver, info.cgroup_driver, info.cgroup_version,
            info.plugins.volume.join(" "), info.plugins.network.join(" "), info.plugins.log.join(" "),
            runtimes.join(" "), info.default_runtime,
        ));
        for option in &info.security_options {
            text.push_str(&format!(
                "  {}\n",
                option.trim_start_matches("name=").replace(",profile=", "\n   Profile: ")
            ));
        }
        text.push_str(&format!(
            " Kernel Version: {}\n Operating System: {}\n OSType: {}\n Architecture: {}\n CPUs: {}\n Total Memory: {}\n Name: {}\n ID: {}\n Docker Root Dir: {}\n Debug Mode: {}\n Experimental: {}\n Live Restore Enabled: {}\n",
            info.kernel_version, info.operating_system, info.os_type, info.architecture, info.n_cpu,
            binary_size(info.mem_total), info.name, info.id, info.docker_root_dir, info.debug,
            info.experimental_build, info.live_restore_enabled,
        ));
        write!(context.ui.out, "{text}")?;
        for warning in info.warnings.iter().flatten() {
            context.ui.complain(warning);
        }
        Ok(0)
    }
}

fn binary_size(bytes: i64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
    let gibibytes = bytes as f64 / 1_073_741_824.0;
    format!("{gibibytes:.3}GiB")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_build_time_of_the_engine_is_told_in_words() {
        let text = r#"{"Components": [{"Name": "Engine", "Details": {"BuildTime": "2026-05-07T21:09:36.000000000+00:00"}},
            {"Name": "runc", "Details": {"BuildTime": "2026-05-07T21:09:36Z"}}, {"Name": "Engine", "Details": {}}]}"#;
        let mut value = Value::from_json(text.as_bytes()).unwrap();
        tell_build_time(&mut value);
        let format = "{{range .Components}}{{json .Details}} {{end}}";
        let shown = Format::parse(format, VERSION_WORDS).unwrap().one(&value).unwrap();
        assert_eq!(
            shown.trim_end(),
            r#"{"BuildTime":"Thu May  7 21:09:36 2026"} {"BuildTime":"2026-05-07T21:09:36Z"} {}"#
        );
        assert_eq!(in_words("unknown"), "unknown");
    }

    proptest! {
        #[test]
        fn any_event_is_a_line(
            time: i64,
            time_nano: i64,
            words in proptest::collection::vec("\\PC{0,6}", 4),
        ) {
            let mut event = Event { time, time_nano, kind: words[0].clone(), ..Event::default() };
            event.actor.id.clone_from(&words[1]);
            event.actor.attributes.insert(words[2].clone(), words[3].clone());
            let text = sentence(&event);
            let attributes = format!("({}={})", words[2], words[3]);
            prop_assert!(text.ends_with(&attributes));
            drop(in_words(&words[0]));
        }
    }
}
