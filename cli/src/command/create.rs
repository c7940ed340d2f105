//! `create`, and the request that `run` shares with it.

use std::collections::BTreeMap;

use clap::Args;
use docker_api::Empty;
use docker_api::container::{
    Config, CreateRequest, CreateResponse, HostConfig, LogConfig, NetworkingConfig, Resources,
};
use docker_api::network::{EndpointIpam, EndpointSettings};

use super::options::Flags;
use super::{Context, flags, image};
use crate::client::{Client, query};
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(super) flags: Flags,
    /// The image, the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARG...]")]
    pub(super) rest: Vec<String>,
}

impl Create {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        self.require(&context.client)?;
        let request =
            self.request(false, &context.client).map_err(|problem| problem.with_help("create"))?;
        let created = self.create(&request, context).await?;
        context.ui.say(&created)?;
        Ok(0)
    }

    /// Asks the daemon, pulling the image when that is wanted; answers the id.
    pub(super) async fn create(
        &self,
        request: &CreateRequest,
        context: &mut Context<'_>,
    ) -> Result<String, CliError> {
        let image = &request.config.image;
        if let Some(path) = &self.flags.cidfile
            && std::path::Path::new(path).exists()
        {
            return Err(CliError::Usage(format!(
                "container ID file found, make sure the other container isn't running or delete {path}"
            )));
        }
        image::parse_any(image)?;
        if self.flags.pull == "always" {
            image::pull_for_run(image, &self.flags.platform, self.flags.quiet, context).await?;
        }
        let path = format!(
            "/containers/create{}",
            query(&[("name", &self.flags.name), ("platform", &self.flags.platform)])
        );
        let answer = context.client.post::<CreateResponse>(&path, request).await;
        let created = match answer {
            Err(problem)
                if problem.is_not_found()
                    && self.flags.pull == "missing"
                    && missing_image(&problem) =>
            {
                if !self.flags.quiet {
                    context.ui.complain(&format!(
                        "Unable to find image '{}' locally",
                        image::with_tag(image)
                    ));
                }
                image::pull_for_run(image, &self.flags.platform, self.flags.quiet, context).await?;
                context.client.post::<CreateResponse>(&path, request).await?
            }
            other => other?,
        };
        for warning in &created.warnings {
            context.ui.complain(&format!("WARNING: {warning}"));
        }
        if let Some(path) = &self.flags.cidfile {
            std::fs::write(path, &created.id)
                .map_err(|source| CliError::io(format!("write {path}"), source))?;
        }
        Ok(created.id)
    }

    /// Refuses what an older engine would silently leave out.
    pub(super) fn require(&self, client: &Client) -> Result<(), CliError> {
        if !self.flags.annotation.is_empty() {
            client.require("--annotation", (1, 43))?;
        }
        if self.flags.health.has_start_interval() {
            client.require("--health-start-interval", (1, 44))?;
        }
        Ok(())
    }

    /// The request, as the options describe it.
    pub(super) fn request(
        &self,
        detached: bool,
        client: &Client,
    ) -> Result<CreateRequest, CliError> {
        let flags = &self.flags;
        if !matches!(flags.pull.as_str(), "always" | "missing" | "never" | "") {
            return Err(CliError::Usage(format!(
                "invalid pull option: '{}': must be one of \"always\", \"missing\" or \"never\"",
                flags.pull
            )));
        }
        let (image, command) = self
            .rest
            .split_first()
            .ok_or_else(|| CliError::Usage("\"docker run\" requires at least 1 argument".into()))?;
        flags::restart_policy(&flags.restart)?;
        if flags.remove && !matches!(flags.restart.as_str(), "no" | "") {
            return Err(CliError::Usage(
                "conflicting options: cannot specify both --restart and --rm".into(),
            ));
        }
        if flags.network.is_empty() {
            return Err(CliError::Usage("no name set for network".into()));
        }
        flags.volume.iter().try_for_each(|volume| flags::volume(volume))?;
        self.check_modes()?;
        let endpoint = self.endpoint(client)?;
        let ports = flags::ports(&flags.publish)?;
        let mut exposed: BTreeMap<String, Empty> =
            ports.exposed.iter().map(|port| (port.clone(), Empty {})).collect();
        for port in &flags.expose {
            if port.contains(':') {
                return Err(CliError::Usage(format!("invalid port format for --expose: {port}")));
            }
            exposed.extend(flags::exposed(port)?.into_iter().map(|port| (port, Empty {})));
        }
        // A path alone is an anonymous volume, everything else a bind.
        let (binds, volumes): (Vec<&String>, Vec<&String>) =
            flags.volume.iter().partition(|volume| volume.contains(':'));
        let attach = |stream: &str| {
            if flags.attach.is_empty() {
                !detached
            } else {
                flags.attach.iter().any(|given| given.eq_ignore_ascii_case(stream))
            }
        };
        let attach_stdin =
            if flags.attach.is_empty() { flags.interactive && !detached } else { attach("stdin") };
        let config = Config {
            hostname: flags.hostname.clone(),
            domainname: flags.domainname.clone(),
            user: flags.user.clone(),
            attach_stdin,
            attach_stdout: attach("stdout"),
            attach_stderr: attach("stderr"),
            exposed_ports: (!exposed.is_empty()).then_some(exposed),
            tty: flags.tty,
            open_stdin: flags.interactive,
            stdin_once: attach_stdin,
            env: Some(flags::environment(&flags.env, &flags.env_file)?),
            cmd: (!command.is_empty()).then(|| command.to_vec()),
            image: image.clone(),
            volumes: (!volumes.is_empty())
                .then(|| volumes.iter().map(|path| ((*path).clone(), Empty {})).collect()),
            working_dir: flags.workdir.clone(),
            entrypoint: flags.entrypoint.clone().map(|entrypoint| vec![entrypoint]),
            healthcheck: flags.health.config()?,
            // Compat: newer engines have it with the endpoint.
            mac_address: (!client.speaks((1, 44)) && !flags.mac_address.is_empty())
                .then(|| flags.mac_address.clone()),
            labels: Some(flags::labels(&flags.label, &flags.label_file)?),
            stop_signal: flags.stop_signal.clone(),
            stop_timeout: flags.stop_timeout,
            ..Config::default()
        };
        Ok(CreateRequest {
            config,
            host_config: Some(self.host_config(&ports, binds)?),
            networking_config: Some(NetworkingConfig {
                endpoints_config: endpoint
                    .map(|endpoint| BTreeMap::from([(flags.network.clone(), Some(endpoint))])),
            }),
        })
    }

    /// Names of namespaces that cannot be.
    fn check_modes(&self) -> Result<(), CliError> {
        let flags = &self.flags;
        let container = flags.pid.strip_prefix("container:").is_some_and(|name| !name.is_empty());
        for (text, known) in [
            ("--pid: invalid PID mode", container || matches!(&*flags.pid, "" | "host")),
            ("--uts: invalid UTS mode", matches!(&*flags.uts, "" | "host")),
            ("--userns: invalid USER mode", matches!(&*flags.userns, "" | "host")),
            (
                "--cgroupns: invalid CGROUP mode",
                matches!(&*flags.cgroupns, "" | "host" | "private"),
            ),
        ] {
            if !known {
                return Err(CliError::Usage(text.to_owned()));
            }
        }
        if !matches!(flags.memory_swappiness, -1..=100) {
            return Err(CliError::Usage(format!(
                "invalid value: {}. Valid memory swappiness range is 0-100",
                flags.memory_swappiness
            )));
        }
        if flags.log_driver == "none" && !flags.log_opt.is_empty() {
            return Err(CliError::Usage("invalid logging opts for driver none".into()));
        }
        if flags.storage_opt.iter().any(|option| !option.contains('=')) {
            return Err(CliError::Usage("invalid storage option".into()));
        }
        Ok(())
    }

    /// What is asked for of the network, if anything is.
    fn endpoint(&self, client: &Client) -> Result<Option<EndpointSettings>, CliError> {
        let flags = &self.flags;
        let predefined = matches!(&*flags.network, "default" | "bridge" | "host" | "none");
        let user_defined = !predefined && !flags.network.starts_with("container:");
        if !flags.network_alias.is_empty() && !user_defined {
            return Err(CliError::Usage(
                "network-scoped aliases are only supported for user-defined networks".into(),
            ));
        }
        if !flags.mac_address.is_empty() && !flags::is_mac_address(&flags.mac_address) {
            return Err(CliError::Usage(format!(
                "{} is not a valid mac address",
                flags.mac_address
            )));
        }
        let addressed =
            !flags.ip.is_empty() || !flags.ip6.is_empty() || !flags.link_local_ip.is_empty();
        let endpoint = EndpointSettings {
            ipam_config: addressed.then(|| EndpointIpam {
                ipv4_address: flags.ip.clone(),
                ipv6_address: flags.ip6.clone(),
                link_local_ips: some(&flags.link_local_ip),
            }),
            aliases: some(&flags.network_alias),
            links: some(&flags.link).filter(|_| user_defined),
            mac_address: if client.speaks((1, 44)) {
                flags.mac_address.clone()
            } else {
                String::new()
            },
            ..EndpointSettings::default()
        };
        Ok((endpoint != EndpointSettings::default()).then_some(endpoint))
    }

    fn host_config(
        &self,
        ports: &flags::Ports,
        binds: Vec<&String>,
    ) -> Result<HostConfig, CliError> {
        let flags = &self.flags;
        let binds =
            binds.into_iter().map(|bind| absolute_bind(bind)).collect::<Result<Vec<_>, _>>()?;
        let mut security = security(&flags.security_opt)?;
        let given = security.len();
        // The engine is asked for no such paths, and knows no such option.
        security.retain(|option| option != "systempaths=unconfined");
        let unmasked = security.len() < given;
        Ok(HostConfig {
            binds: some(&binds),
            container_id_file: flags.cidfile.clone().unwrap_or_default(),
            log_config: LogConfig {
                kind: flags.log_driver.clone(),
                config: flags::pairs(&flags.log_opt),
            },
            network_mode: flags.network.clone(),
            port_bindings: Some(ports.port_map()),
            restart_policy: flags::restart_policy(&flags.restart)?,
            auto_remove: flags.remove,
            volume_driver: flags.volume_driver.clone(),
            volumes_from: some(&flags.volumes_from),
            console_size: crate::terminal::size()
                .map(|(rows, columns)| [rows.into(), columns.into()]),
            cap_add: some(&flags.cap_add),
            cap_drop: some(&flags.cap_drop),
            annotations: (!flags.annotation.is_empty()).then(|| flags::pairs(&flags.annotation)),
            cgroupns_mode: flags.cgroupns.clone(),
            dns: Some(flags.dns.clone()),
            dns_options: Some(flags.dns_option.clone()),
            dns_search: Some(flags.dns_search.clone()),
            extra_hosts: some(&flags.add_host),
            group_add: some(&flags.group_add),
            ipc_mode: flags.ipc.clone(),
            isolation: flags.isolation.clone(),
            links: some(&flags.link),
            mounts: some(&flags.mount),
            oom_score_adj: flags.oom_score_adj,
            pid_mode: flags.pid.clone(),
            userns_mode: flags.userns.clone(),
            uts_mode: flags.uts.clone(),
            privileged: flags.privileged,
            publish_all_ports: flags.publish_all,
            readonly_rootfs: flags.read_only,
            security_opt: some(&security),
            masked_paths: unmasked.then(Vec::new),
            readonly_paths: unmasked.then(Vec::new),
            tmpfs: (!flags.tmpfs.is_empty()).then(|| {
                flags
                    .tmpfs
                    .iter()
                    .map(|entry| {
                        let (path, options) = entry.split_once(':').unwrap_or((entry, ""));
                        (path.to_owned(), options.to_owned())
                    })
                    .collect()
            }),
            shm_size: flags.shm_size,
            storage_opt: (!flags.storage_opt.is_empty()).then(|| flags::pairs(&flags.storage_opt)),
            sysctls: (!flags.sysctl.is_empty()).then(|| flags::pairs(&flags.sysctl)),
            runtime: flags.runtime.clone(),
            init: flags.init,
            resources: self.resources()?,
            ..HostConfig::default()
        })
    }

    fn resources(&self) -> Result<Resources, CliError> {
        let flags = &self.flags;
        let devices: Vec<_> =
            flags.device.iter().map(|device| flags::device(device)).collect::<Result<_, _>>()?;
        Ok(Resources {
            cgroup_parent: flags.cgroup_parent.clone(),
            blkio_weight_device: Some(flags.blkio_weight_device.clone()),
            blkio_device_read_bps: some(&flags.device_read_bps),
            blkio_device_read_iops: some(&flags.device_read_iops),
            blkio_device_write_bps: some(&flags.device_write_bps),
            blkio_device_write_iops: some(&flags.device_write_iops),
            devices: Some(devices),
            device_cgroup_rules: some(&flags.device_cgroup_rule),
            memory_swappiness: (flags.memory_swappiness >= 0).then_some(flags.memory_swappiness),
            oom_kill_disable: flags.oom_kill_disable.then_some(true),
            ulimits: some(&flags.ulimit),
            ..flags.limits.resources()
        })
    }
}

/// What was given at all.
fn some<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn missing_image(problem: &CliError) -> bool {
    matches!(problem, CliError::Daemon { message, .. } if message.to_lowercase().contains("no such image"))
}

/// A seccomp profile is read here; everything but switches has a value.
fn security(options: &[String]) -> Result<Vec<String>, CliError> {
    options
        .iter()
        .map(|option| {
            let (name, value) = match option.split_once('=').or_else(|| option.split_once(':')) {
                Some((name, value)) => (name, value),
                None if matches!(option.as_str(), "no-new-privileges" | "disable") => {
                    return Ok(option.clone());
                }
                None => {
                    return Err(CliError::Usage(format!("Invalid --security-opt: {option:?}")));
                }
            };
            if name != "seccomp" || matches!(value, "unconfined" | "builtin") {
                return Ok(option.clone());
            }
            let profile = std::fs::read_to_string(value).map_err(|source| {
                CliError::io(
                    format!("opening seccomp profile ({value}) failed: open {value}"),
                    source,
                )
            })?;
            let profile: serde_json::Value = serde_json::from_str(&profile).map_err(|problem| {
                CliError::Usage(format!(
                    "compacting json for seccomp profile ({value}) failed: {problem}"
                ))
            })?;
            Ok(format!("seccomp={profile}"))
        })
        .collect()
}

/// A relative source is below the current directory.
fn absolute_bind(bind: &str) -> Result<String, CliError> {
    if !bind.starts_with('.') {
        return Ok(bind.to_owned());
    }
    let (source, rest) = bind.split_once(':').unwrap_or((bind, ""));
    let source = std::path::absolute(source)
        .map_err(|problem| CliError::io(format!("resolve {source}"), problem))?;
    Ok(format!("{}:{rest}", source.display()))
}
