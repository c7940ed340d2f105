//! `ps` and `images`.

use clap::Args;
use docker_api::container::{ContainerSummary, Port};
use docker_api::filters::Filters;
use docker_api::image::ImageSummary;
use serde_json::json;

use super::Context;
use crate::client::query;
use crate::error::CliError;
use crate::format::template::Format;
use crate::format::units;

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Show all containers (default shows just running)
    #[arg(short = 'a', long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Format output using a custom template
    #[arg(long)]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, allow_hyphen_values = true, default_value_t = -1, hide_default_value = true)]
    last: i64,
    /// Show the latest created container (includes all states)
    #[arg(short = 'l', long)]
    latest: bool,
    /// Don't truncate output
    #[arg(long = "no-trunc")]
    no_trunc: bool,
    /// Only display container IDs
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Display total file sizes
    #[arg(short = 's', long)]
    size: bool,
}

const PS: &str = "table {{.ID}}\\t{{.Image}}\\t{{.Command}}\\t{{.RunningFor}}\\t{{.Status}}\\t{{.Ports}}\\t{{.Names}}";

impl Ps {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let limit = if self.latest { 1 } else { self.last };
        let limit = if limit > 0 { limit.to_string() } else { String::new() };
        let query = query(&[
            ("all", if self.all { "1" } else { "" }),
            ("limit", &limit),
            ("size", if self.size { "1" } else { "" }),
            ("filters", &filters(&self.filter)?),
        ]);
        let containers: Vec<ContainerSummary> =
            context.client.get(&format!("/containers/json{query}")).await?;
        let rows: Vec<_> = containers.iter().map(|container| self.row(container)).collect();
        let custom = self.format.clone().or_else(|| {
            (!context.config.ps_format.is_empty()).then(|| context.config.ps_format.clone())
        });
        let format = match custom {
            Some(format) => format,
            None if self.quiet => "{{.ID}}".to_owned(),
            None if self.size => format!("{PS}\\t{{{{.Size}}}}"),
            None => PS.to_owned(),
        };
        let headings = json!({
            "ID": "CONTAINER ID", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT",
            "RunningFor": "CREATED", "Status": "STATUS", "State": "STATE", "Ports": "PORTS",
            "Names": "NAMES", "Labels": "LABELS", "Mounts": "MOUNTS", "Networks": "NETWORKS",
            "Size": "SIZE", "LocalVolumes": "LOCAL VOLUMES",
        });
        write!(context.ui.out, "{}", Format::parse(&format)?.many(&rows, &headings)?)?;
        Ok(0)
    }

    fn row(&self, container: &ContainerSummary) -> serde_json::Value {
        let cut = |text: &str, length: usize| {
            if self.no_trunc { text.to_owned() } else { text.chars().take(length).collect() }
        };
        let command = if self.no_trunc || container.command.chars().count() <= 20 {
            container.command.clone()
        } else {
            format!("{}…", container.command.chars().take(19).collect::<String>())
        };
        let names: Vec<&str> =
            container.names.iter().map(|name| name.trim_start_matches('/')).collect();
        let labels: Vec<String> =
            container.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let networks: Vec<&str> =
            container.network_settings.networks.keys().map(String::as_str).collect();
        let mounts: Vec<&str> =
            container
                .mounts
                .iter()
                .map(|mount| {
                    if mount.name.is_empty() { mount.source.as_str() } else { mount.name.as_str() }
                })
                .collect();
        json!({
            "ID": cut(&container.id, 12),
            "Image": container.image,
            "Command": format!("\"{command}\""),
            "CreatedAt": local_time(container.created),
            "RunningFor": units::ago(container.created),
            "Status": container.status,
            "State": container.state,
            "Ports": ports(&container.ports),
            "Names": names.join(","),
            "Labels": labels.join(","),
            "Mounts": mounts.join(","),
            "Networks": networks.join(","),
            "LocalVolumes": container.mounts.iter().filter(|mount| mount.driver == "local").count().to_string(),
            "Size": format!(
                "{} (virtual {})",
                units::size(container.size_rw.unwrap_or(0)),
                units::size(container.size_root_fs.unwrap_or(0))
            ),
        })
    }
}

fn ports(ports: &[Port]) -> String {
    let mut out: Vec<String> = ports
        .iter()
        .map(|port| {
            if port.public_port == 0 {
                return format!("{}/{}", port.private_port, port.kind);
            }
            let ip = if port.ip.contains(':') { format!("[{}]", port.ip) } else { port.ip.clone() };
            format!("{ip}:{}->{}/{}", port.public_port, port.private_port, port.kind)
        })
        .collect();
    out.sort();
    out.join(", ")
}

fn local_time(unix: i64) -> String {
    jiff::Timestamp::from_second(unix).map_or_else(
        |_| String::new(),
        |time| {
            time.to_zoned(jiff::tz::TimeZone::system())
                .strftime("%Y-%m-%d %H:%M:%S %z %Z")
                .to_string()
        },
    )
}

/// `name=value` filters as the API takes them.
pub(super) fn filters(given: &[String]) -> Result<String, CliError> {
    let mut filters = Filters::default();
    for entry in given {
        let (name, value) = entry.split_once('=').ok_or_else(|| {
            CliError::Usage(format!("invalid argument {entry:?} for \"-f, --filter\" flag: bad format of filter (expected name=value)"))
        })?;
        filters.add(name.trim().to_lowercase().as_str(), value.trim());
    }
    Ok(if filters.is_empty() { String::new() } else { filters.to_json() })
}

#[derive(Debug, Args)]
pub(crate) struct Images {
    /// Show all images (default hides intermediate images)
    #[arg(short = 'a', long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output based on conditions provided
    #[arg(short = 'f', long)]
    filter: Vec<String>,
    /// Format output using a custom template
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long = "no-trunc")]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short = 'q', long)]
    quiet: bool,
    repository: Option<String>,
}

impl Images {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let mut given = self.filter.clone();
        given.extend(self.repository.as_ref().map(|repository| format!("reference={repository}")));
        let query =
            query(&[("all", if self.all { "1" } else { "" }), ("filters", &filters(&given)?)]);
        let images: Vec<ImageSummary> = context.client.get(&format!("/images/json{query}")).await?;
        let rows: Vec<_> = images.iter().flat_map(|image| self.rows(image)).collect();
        let custom = self.format.clone().or_else(|| {
            (!context.config.images_format.is_empty()).then(|| context.config.images_format.clone())
        });
        let format = match custom {
            Some(format) => format,
            None if self.quiet => "{{.ID}}".to_owned(),
            None if self.digests => "table {{.Repository}}\\t{{.Tag}}\\t{{.Digest}}\\t{{.ID}}\\t{{.CreatedSince}}\\t{{.Size}}".to_owned(),
            None => "table {{.Repository}}\\t{{.Tag}}\\t{{.ID}}\\t{{.CreatedSince}}\\t{{.Size}}".to_owned(),
        };
        let headings = json!({
            "Repository": "REPOSITORY", "Tag": "TAG", "ID": "IMAGE ID", "Digest": "DIGEST",
            "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "Size": "SIZE",
            "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
        });
        write!(context.ui.out, "{}", Format::parse(&format)?.many(&rows, &headings)?)?;
        Ok(0)
    }

    fn rows(&self, image: &ImageSummary) -> Vec<serde_json::Value> {
        let digests = image.repo_digests.clone().unwrap_or_default();
        let mut names: Vec<(String, String)> = image
            .repo_tags
            .iter()
            .flatten()
            .filter(|name| *name != "<none>:<none>")
            .filter_map(|name| name.rsplit_once(':'))
            .map(|(repository, tag)| (repository.to_owned(), tag.to_owned()))
            .collect();
        if names.is_empty() {
            let repository = digests.first().and_then(|name| name.split_once('@'));
            let repository = repository.map_or("<none>", |(repository, _)| repository);
            names.push((repository.to_owned(), "<none>".to_owned()));
        }
        let id = if self.no_trunc {
            image.id.clone()
        } else {
            image.id.trim_start_matches("sha256:").chars().take(12).collect()
        };
        names
            .into_iter()
            .map(|(repository, tag)| {
                let digest = digests
                    .iter()
                    .filter_map(|name| name.split_once('@'))
                    .find(|(name, _)| *name == repository)
                    .map_or("<none>", |(_, digest)| digest);
                json!({
                    "Repository": repository, "Tag": tag, "ID": id, "Digest": digest,
                    "CreatedSince": units::ago(image.created),
                    "CreatedAt": local_time(image.created),
                    "Size": units::size(image.size),
                    "Containers": if image.containers < 0 { "N/A".to_owned() } else { image.containers.to_string() },
                    "SharedSize": if image.shared_size < 0 { "N/A".to_owned() } else { units::size(image.shared_size) },
                    "UniqueSize": "N/A",
                })
            })
            .collect()
    }
}
