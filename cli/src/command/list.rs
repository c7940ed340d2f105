//! `ps` and `images`.

use clap::Args;
use docker_api::StringMap;
use docker_api::container::{ContainerSummary, Port};
use docker_api::filters::Filters;
use docker_api::image::ImageSummary;

use super::{Context, flags};
use crate::client::query;
use crate::error::CliError;
use crate::format::template::{Format, Value, Words, row};
use crate::format::units;

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Show all containers (default shows just running)
    #[arg(short = 'a', long)]
    all: bool,
    /// Filter output based on conditions provided
    #[arg(short = 'f', long, value_parser = flags::filter)]
    filter: Vec<String>,
    /// Format output using a custom template
    #[arg(long)]
    format: Option<String>,
    /// Show n last created containers (includes all states)
    #[arg(short = 'n', long, value_parser = flags::integer, allow_hyphen_values = true, default_value_t = -1, hide_default_value = true)]
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
const PS_RAW: &str = "container_id: {{.ID}}\nimage: {{.Image}}\ncommand: {{.Command}}\ncreated_at: {{.CreatedAt}}\nstate: {{- pad .State 1 0}}\nstatus: {{- pad .Status 1 0}}\nnames: {{.Names}}\nlabels: {{- pad .Labels 1 0}}\nports: {{- pad .Ports 1 0}}\n";
const PS_WORDS: Words = Words {
    name: "",
    parsing: "failed to parse template: ",
    executing: "failed to execute template: ",
    code: 1,
    type_name: "*formatter.ContainerContext",
};

impl Ps {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let custom = self.format.as_ref().or(Some(&context.config.ps_format));
        let custom = custom.filter(|format| !format.is_empty() && *format != "table").cloned();
        let mut format = match custom.as_deref() {
            _ if self.quiet => "{{.ID}}".to_owned(),
            Some("raw") if self.size => format!("{PS_RAW}size: {{{{.Size}}}}\n"),
            Some("raw") => PS_RAW.to_owned(),
            Some(format) => format.to_owned(),
            None if self.size => format!("{PS}\\t{{{{.Size}}}}"),
            None => PS.to_owned(),
        };
        if self.quiet && self.format.is_some() {
            context.ui.complain(
                "WARNING: Ignoring custom format, because both --format and --quiet are set.",
            );
        }
        if self.quiet && custom.as_deref() == Some("raw") {
            format = "container_id: {{.ID}}".to_owned();
        }
        let format_parsed = Format::parse(&format, PS_WORDS)?;
        // Compat: it is tried with a container of no properties, also where none will be shown.
        format_parsed.one(&self.row(&ContainerSummary::default()))?;
        let limit = if self.latest { 1 } else { self.last };
        let limit = if limit > 0 { limit.to_string() } else { String::new() };
        // Compat: a template that shows the size asks for it.
        let size = self.size || format.contains(".Size");
        let query = query(&[
            ("all", if self.all { "1" } else { "" }),
            ("limit", &limit),
            ("size", if size { "1" } else { "" }),
            ("filters", &filters(&self.filter)),
        ]);
        let containers: Vec<ContainerSummary> =
            context.client.get(&format!("/containers/json{query}")).await?;
        let rows: Vec<_> = containers.iter().map(|container| self.row(container)).collect();
        let headings = headings(&[
            ("ID", "CONTAINER ID"),
            ("Image", "IMAGE"),
            ("Command", "COMMAND"),
            ("CreatedAt", "CREATED AT"),
            ("RunningFor", "CREATED"),
            ("Status", "STATUS"),
            ("State", "STATE"),
            ("Ports", "PORTS"),
            ("Names", "NAMES"),
            ("Labels", "LABELS"),
            ("Mounts", "MOUNTS"),
            ("Networks", "NETWORKS"),
            ("Size", "SIZE"),
            ("LocalVolumes", "LOCAL VOLUMES"),
            ("Platform", "PLATFORM"),
        ]);
        write!(context.ui.out, "{}", format_parsed.many(&rows, &headings)?)?;
        Ok(0)
    }

    fn row(&self, container: &ContainerSummary) -> Value {
        let cut = |text: &str, length: usize| {
            if self.no_trunc { text.to_owned() } else { text.chars().take(length).collect() }
        };
        let shorten = |text: &str, length: usize| {
            if self.no_trunc || text.chars().count() <= length {
                return text.to_owned();
            }
            format!("{}…", text.chars().take(length - 1).collect::<String>())
        };
        let names: Vec<&str> = container
            .names
            .iter()
            .map(|name| name.trim_start_matches('/'))
            .filter(|name| self.no_trunc || !name.contains('/'))
            .collect();
        let networks: Vec<&str> =
            container.network_settings.networks.keys().map(String::as_str).collect();
        let mounts: Vec<String> = container
            .mounts
            .iter()
            .map(|mount| if mount.name.is_empty() { &mount.source } else { &mount.name })
            .map(|name| shorten(name, 15))
            .collect();
        let volumes = container.mounts.iter().filter(|mount| mount.driver == "local").count();
        let image = match container.image.as_str() {
            "" => "<no image>".to_owned(),
            // The name is gone: the id, as short as others.
            image if image == container.image_id => cut(image.trim_start_matches("sha256:"), 12),
            image => image.to_owned(),
        };
        let members = [
            ("ID", Value::Text(cut(&container.id, 12))),
            ("Image", Value::Text(image)),
            ("Command", Value::Text(format!("\"{}\"", shorten(&container.command, 20)))),
            ("CreatedAt", Value::Text(local_time(container.created))),
            ("RunningFor", Value::Text(units::ago(container.created))),
            ("Status", Value::text(&container.status)),
            ("State", Value::text(&container.state)),
            ("Ports", Value::Text(ports(&container.ports))),
            ("Names", Value::Text(names.join(","))),
            ("Labels", Value::Text(labels(&container.labels))),
            ("Mounts", Value::Text(mounts.join(","))),
            ("Networks", Value::Text(networks.join(","))),
            ("LocalVolumes", Value::Text(volumes.to_string())),
            ("Platform", Value::Null),
            (
                "Size",
                Value::Text(match container.size_root_fs.unwrap_or(0) {
                    0 => units::size(container.size_rw.unwrap_or(0)),
                    all => format!(
                        "{} (virtual {})",
                        units::size(container.size_rw.unwrap_or(0)),
                        units::size(all)
                    ),
                }),
            ),
        ];
        row(members, label_values(&container.labels))
    }
}

/// How a list of simple things is printed.
pub(super) struct RowsFormat {
    pub(super) table: &'static str,
    pub(super) raw: &'static str,
    pub(super) quiet: &'static str,
    pub(super) quiet_raw: &'static str,
    pub(super) words: Words,
    pub(super) headings: &'static [(&'static str, &'static str)],
}

impl RowsFormat {
    /// Prints rows as asked for, or as configured. Compat: a template of the user's counts before
    /// `--quiet` (not so for `ps`).
    pub(super) fn print(
        &self,
        given: Option<&str>,
        configured: &str,
        quiet: bool,
        rows: &[Value],
        context: &mut Context<'_>,
    ) -> Result<u8, CliError> {
        let given = match given.filter(|format| !format.is_empty()) {
            None if !quiet => Some(configured),
            other => other,
        };
        let format = match given {
            None | Some("" | "table") if quiet => self.quiet,
            None | Some("" | "table") => self.table,
            Some("raw") if quiet => self.quiet_raw,
            Some("raw") => self.raw,
            Some(own) => own,
        };
        let format = Format::parse(format, self.words)?;
        write!(context.ui.out, "{}", format.many(rows, &headings(self.headings))?)?;
        Ok(0)
    }
}

/// Labels in one cell.
pub(super) fn labels(labels: &StringMap) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(",")
}

/// Labels for `{{.Label "name"}}`.
pub(super) fn label_values(labels: &StringMap) -> Value {
    Value::Map(labels.iter().map(|(name, value)| (name.clone(), Value::text(value))).collect())
}

fn headings(names: &[(&str, &str)]) -> Value {
    row(names.iter().map(|(name, heading)| (*name, Value::text(*heading))), Value::Null)
}

/// Ports in the order of the container's; neighbours that are published under their own number
/// are shown as a range.
fn ports(ports: &[Port]) -> String {
    let mut ports: Vec<&Port> = ports.iter().collect();
    ports.sort_by_key(|port| (port.private_port, &port.ip, port.public_port, &port.kind));
    let join = |ip: &str, port: &str| {
        if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") }
    };
    let mut groups: Vec<((&str, &str), u16, u16)> = Vec::new();
    let (mut out, mut mapped) = (Vec::new(), Vec::new());
    let shown = |(ip, kind): (&str, &str), first: u16, last: u16| {
        let range = if first == last { first.to_string() } else { format!("{first}-{last}") };
        if ip.is_empty() {
            format!("{range}/{kind}")
        } else {
            format!("{}->{range}/{kind}", join(ip, &range))
        }
    };
    for port in ports {
        let private = port.private_port;
        if !port.ip.is_empty() && port.public_port != private {
            let public = join(&port.ip, &port.public_port.to_string());
            mapped.push(format!("{public}->{private}/{}", port.kind));
            continue;
        }
        let key = (port.ip.as_str(), port.kind.as_str());
        match groups.iter_mut().find(|(known, ..)| *known == key) {
            None => groups.push((key, private, private)),
            Some((_, _, last)) if last.checked_add(1) == Some(private) => *last = private,
            Some((key, first, last)) => {
                out.push(shown(*key, *first, *last));
                (*first, *last) = (private, private);
            }
        }
    }
    out.extend(groups.into_iter().map(|(key, first, last)| shown(key, first, last)));
    out.extend(mapped);
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
pub(super) fn filters(given: &[String]) -> String {
    let mut filters = Filters::default();
    for entry in given {
        let Some((name, value)) = entry.split_once('=') else { continue };
        filters.add(name.trim().to_lowercase().as_str(), value.trim());
    }
    if filters.is_empty() { String::new() } else { filters.to_json() }
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
    #[arg(short = 'f', long, value_parser = flags::filter)]
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

const IMAGES: &str = "table {{.Repository}}\\t{{.Tag}}\\t{{.ID}}\\t{{.CreatedSince}}\\t{{.Size}}";
const IMAGES_DIGESTS: &str =
    "table {{.Repository}}\\t{{.Tag}}\\t{{.Digest}}\\t{{.ID}}\\t{{.CreatedSince}}\\t{{.Size}}";
const IMAGES_RAW: &str = "repository: {{.Repository}}\ntag: {{.Tag}}\nimage_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n";
const IMAGES_WORDS: Words = Words {
    name: "",
    parsing: "template parsing error: ",
    executing: "template parsing error: ",
    code: 1,
    type_name: "*formatter.imageContext",
};

impl Images {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let mut given = self.filter.clone();
        given.extend(self.repository.as_ref().map(|repository| format!("reference={repository}")));
        let query =
            query(&[("all", if self.all { "1" } else { "" }), ("filters", &filters(&given))]);
        let images: Vec<ImageSummary> = context.client.get(&format!("/images/json{query}")).await?;
        let custom = self.format.as_ref().or(Some(&context.config.images_format));
        let custom = custom.filter(|format| !format.is_empty() && *format != "table").cloned();
        let format = match custom.as_deref() {
            None if self.quiet => "{{.ID}}".to_owned(),
            Some("raw") if self.quiet => "image_id: {{.ID}}".to_owned(),
            Some("raw") => IMAGES_RAW.to_owned(),
            Some(format) => format.to_owned(),
            None if self.digests => IMAGES_DIGESTS.to_owned(),
            None => IMAGES.to_owned(),
        };
        let digests = self.digests || format.contains("{{.Digest}}");
        let rows: Vec<_> = images.iter().flat_map(|image| self.rows(image, digests)).collect();
        let headings = headings(&[
            ("Repository", "REPOSITORY"),
            ("Tag", "TAG"),
            ("ID", "IMAGE ID"),
            ("Digest", "DIGEST"),
            ("CreatedSince", "CREATED"),
            ("CreatedAt", "CREATED AT"),
            ("Size", "SIZE"),
            ("Containers", "CONTAINERS"),
            ("VirtualSize", "VIRTUAL SIZE"),
            ("SharedSize", "SHARED SIZE"),
            ("UniqueSize", "UNIQUE SIZE"),
        ]);
        let format = Format::parse(&format, IMAGES_WORDS)?;
        write!(context.ui.out, "{}", format.many(&rows, &headings)?)?;
        Ok(0)
    }

    /// Repository, tag and digest of each row.
    fn references(&self, image: &ImageSummary, with_digest: bool) -> Vec<[String; 3]> {
        let split = |names: &Option<Vec<String>>, at: char| -> Vec<(String, String)> {
            let names = names.iter().flatten().filter(|name| !name.starts_with("<none>"));
            names
                .filter_map(|name| name.rsplit_once(at))
                .map(|(repository, rest)| (repository.to_owned(), rest.to_owned()))
                .collect()
        };
        let (tags, digests) = (split(&image.repo_tags, ':'), split(&image.repo_digests, '@'));
        let none = || "<none>".to_owned();
        if tags.is_empty() && digests.is_empty() {
            return vec![[none(), none(), none()]];
        }
        let mut rows = Vec::new();
        for (repository, tag) in &tags {
            let digest = digests.iter().find(|(name, _)| with_digest && name == repository);
            let digest = digest.map_or_else(none, |(_, digest)| digest.clone());
            rows.push([repository.clone(), tag.clone(), digest]);
        }
        for (repository, digest) in digests {
            if tags.iter().all(|(tagged, _)| *tagged != repository) {
                // Compat: the flag shows it, and no template does.
                let digest = if self.digests { digest } else { String::new() };
                rows.push([repository, none(), digest]);
            }
        }
        rows.dedup();
        rows
    }

    fn rows(&self, image: &ImageSummary, with_digest: bool) -> Vec<Value> {
        let id = if self.no_trunc {
            image.id.clone()
        } else {
            image.id.trim_start_matches("sha256:").chars().take(12).collect()
        };
        let size = |bytes: i64| {
            if bytes < 0 { "N/A".to_owned() } else { units::size(bytes) }
        };
        let containers = match image.containers {
            ..0 => "N/A".to_owned(),
            count => count.to_string(),
        };
        self.references(image, with_digest)
            .into_iter()
            .map(|[repository, tag, digest]| {
                let members = [
                    ("Digest", Value::Text(digest)),
                    ("Repository", Value::Text(repository)),
                    ("Tag", Value::Text(tag)),
                    ("ID", Value::text(&id)),
                    ("CreatedSince", Value::Text(units::ago(image.created))),
                    ("CreatedAt", Value::Text(local_time(image.created))),
                    ("Size", Value::Text(units::size(image.size))),
                    ("VirtualSize", Value::Text(units::size_of(image.size, 4))),
                    ("Containers", Value::text(&containers)),
                    ("SharedSize", Value::Text(size(image.shared_size))),
                    ("UniqueSize", Value::text("N/A")),
                ];
                row(members, Value::Null)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbouring_ports_are_shown_as_a_range() {
        let port = |ip: &str, private, public| Port {
            ip: ip.to_owned(),
            private_port: private,
            public_port: public,
            kind: "tcp".to_owned(),
        };
        // Compat: as docker 28.5 prints them.
        for (given, shown) in [
            (vec![port("", 80, 0)], "80/tcp"),
            (
                vec![port("0.0.0.0", 80, 8081), port("::", 80, 8081)],
                "0.0.0.0:8081->80/tcp, [::]:8081->80/tcp",
            ),
            (
                vec![port("1.2.3.4", 7001, 7001), port("1.2.3.4", 7000, 7000)],
                "1.2.3.4:7000-7001->7000-7001/tcp",
            ),
            (vec![port("", 1, 0), port("", 2, 0), port("", 9, 0)], "1-2/tcp, 9/tcp"),
        ] {
            assert_eq!(ports(&given), shown);
        }
    }

    proptest! {
        #[test]
        fn every_port_is_shown(
            given in proptest::collection::vec(
                ("(|0.0.0.0|::|127.0.0.1)", prop_oneof![Just(65535_u16), Just(0), any::<u16>(), 80_u16..84], prop_oneof![any::<u16>(), 80_u16..84], any::<bool>(), any::<bool>()),
                0..8,
            ),
        ) {
            let given: Vec<Port> = given
                .into_iter()
                .map(|(ip, private, public, same, udp)| Port {
                    public_port: if ip.is_empty() { 0 } else if same { private } else { public },
                    ip,
                    private_port: private,
                    kind: if udp { "udp" } else { "tcp" }.to_owned(),
                })
                .collect();
            let text = ports(&given);
            prop_assert_eq!(text.is_empty(), given.is_empty());
            for port in &given {
                prop_assert!(text.contains(&port.kind) && text.contains(&port.ip));
                let covered = text.split(", ").any(|part| {
                    let range = part.rsplit("->").next().and_then(|part| part.split('/').next()).unwrap_or_default();
                    let (first, last) = range.split_once('-').unwrap_or((range, range));
                    let bounds = (first.parse::<u16>().unwrap(), last.parse::<u16>().unwrap());
                    (bounds.0..=bounds.1).contains(&port.private_port)
                });
                prop_assert!(covered, "{} in {}", port.private_port, text);
            }
        }
    }
}
