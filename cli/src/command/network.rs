//! `network ls`.

use clap::Args;
use docker_api::network::Network;

use super::list::{self, RowsFormat};
use super::{Context, flags};
use crate::client::query;
use crate::error::CliError;
use crate::format::natural;
use crate::format::template::{Value, Words, row};

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Provide filter values (e.g. "driver=bridge")
    #[arg(short = 'f', long, value_parser = flags::filter)]
    filter: Vec<String>,
    /// Format output using a custom template
    #[arg(long)]
    format: Option<String>,
    /// Do not truncate the output
    #[arg(long = "no-trunc")]
    no_trunc: bool,
    /// Only display network IDs
    #[arg(short = 'q', long)]
    quiet: bool,
}

const FORMAT: RowsFormat = RowsFormat {
    table: "table {{.ID}}\\t{{.Name}}\\t{{.Driver}}\\t{{.Scope}}",
    raw: "network_id: {{.ID}}\nname: {{.Name}}\ndriver: {{.Driver}}\nscope: {{.Scope}}\n",
    quiet: "{{.ID}}",
    quiet_raw: "network_id: {{.ID}}",
    words: Words {
        name: "",
        parsing: "template parsing error: ",
        executing: "template parsing error: ",
        code: 1,
        type_name: "*network.networkContext",
    },
    headings: &[
        ("ID", "NETWORK ID"),
        ("Name", "NAME"),
        ("Driver", "DRIVER"),
        ("Scope", "SCOPE"),
        ("IPv4", "IPV4"),
        ("IPv6", "IPV6"),
        ("Internal", "INTERNAL"),
        ("CreatedAt", "CREATED AT"),
        ("Labels", "LABELS"),
    ],
};

impl Ls {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let query = query(&[("filters", &list::filters(&self.filter))]);
        let mut networks: Vec<Network> = context.client.get(&format!("/networks{query}")).await?;
        networks.sort_by(|one, other| natural::order(&one.name, &other.name));
        let rows: Vec<Value> = networks.iter().map(|network| self.shown(network)).collect();
        let configured = context.config.networks_format.clone();
        FORMAT.print(self.format.as_deref(), &configured, self.quiet, &rows, context)
    }

    fn shown(&self, network: &Network) -> Value {
        let id =
            if self.no_trunc { network.id.clone() } else { network.id.chars().take(12).collect() };
        let members = [
            ("ID", Value::Text(id)),
            ("Name", Value::text(&network.name)),
            ("Driver", Value::text(&network.driver)),
            ("Scope", Value::text(&network.scope)),
            ("IPv4", Value::Text(network.enable_ipv4.unwrap_or(false).to_string())),
            ("IPv6", Value::Text(network.enable_ipv6.to_string())),
            ("Internal", Value::Text(network.internal.to_string())),
            ("CreatedAt", Value::Text(in_words(&network.created))),
            ("Labels", Value::Text(list::labels(&network.labels))),
        ];
        row(members, list::label_values(&network.labels))
    }
}

/// A moment as Go prints one.
fn in_words(rfc3339: &str) -> String {
    match rfc3339.split_once('T') {
        Some((date, time)) if time.ends_with('Z') => {
            format!("{date} {} +0000 UTC", time.trim_end_matches('Z'))
        }
        Some((date, time)) => match time.find(['+', '-']).map(|at| time.split_at(at)) {
            Some((time, offset)) => {
                let offset = offset.replace(':', "");
                format!("{date} {time} {offset} {offset}")
            }
            None => rfc3339.to_owned(),
        },
        None => rfc3339.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_printed_as_by_go() {
        for (text, printed) in [
            ("2026-11-29T21:43:40.088405194Z", "2026-11-29 21:43:40.088405194 +0000 UTC"),
            ("2026-11-29T21:43:40+02:00", "2026-11-29 21:43:40 +0200 +0200"),
            ("", ""),
        ] {
            assert_eq!(in_words(text), printed);
        }
    }
}
