//! `create`, and the request that `run` shares with it.

use std::collections::BTreeMap;

use clap::Args;
use docker_api::Empty;
use docker_api::container::{
    Config, CreateRequest, CreateResponse, HostConfig, LogConfig, NetworkingConfig, Resources,
    RestartPolicy, Ulimit,
};

use super::{Context, flags, image};
use crate::client::query;
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    pub(super) flags: Flags,
    /// The image, the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARG...]")]
    pub(super) rest: Vec<String>,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Flags {
    /// Print usage
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Keep STDIN open even if not attached
    #[arg(short = 'i', long)]
    pub(super) interactive: bool,
    /// Allocate a pseudo-TTY
    #[arg(short = 't', long)]
    pub(super) tty: bool,
    /// Automatically remove the container when it exits
    #[arg(long = "rm")]
    pub(super) remove: bool,
    /// Attach to STDIN, STDOUT or STDERR
    #[arg(short = 'a', long = "attach", value_name = "STREAM", value_parser = flags::stream)]
    pub(super) attach: Vec<String>,
    /// Assign a name to the container
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) name: String,
    /// Set environment variables
    #[arg(short = 'e', long = "env", value_parser = flags::variable)]
    env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long = "env-file")]
    env_file: Vec<String>,
    /// Bind mount a volume
    #[arg(short = 'v', long = "volume")]
    volume: Vec<String>,
    /// Mount volumes from the specified container(s)
    #[arg(long = "volumes-from")]
    volumes_from: Vec<String>,
    /// Mount a tmpfs directory
    #[arg(long)]
    tmpfs: Vec<String>,
    /// Publish a container's port(s) to the host
    #[arg(short = 'p', long)]
    publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long = "publish-all")]
    publish_all: bool,
    /// Expose a port or a range of ports
    #[arg(long)]
    expose: Vec<String>,
    /// Connect a container to a network
    #[arg(long, visible_alias = "net", default_value = "default", hide_default_value = true)]
    network: String,
    /// Working directory inside the container
    #[arg(short = 'w', long, default_value = "", hide_default_value = true)]
    workdir: String,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short = 'u', long, default_value = "", hide_default_value = true)]
    user: String,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    entrypoint: Option<String>,
    /// Memory limit
    #[arg(short = 'm', long, value_parser = flags::memory, default_value = "0", hide_default_value = true)]
    memory: i64,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long = "memory-swap", value_parser = flags::swap, default_value = "0", hide_default_value = true, allow_hyphen_values = true)]
    memory_swap: i64,
    /// Memory soft limit
    #[arg(long = "memory-reservation", value_parser = flags::memory, default_value = "0", hide_default_value = true)]
    memory_reservation: i64,
    /// Number of CPUs
    #[arg(long, value_parser = flags::cpus, default_value = "0", hide_default_value = true)]
    cpus: i64,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long = "cpu-shares", value_parser = flags::integer, default_value_t = 0, hide_default_value = true)]
    cpu_shares: i64,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long = "cpuset-cpus", default_value = "", hide_default_value = true)]
    cpuset_cpus: String,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long = "pids-limit", value_parser = flags::integer, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Ulimit options
    #[arg(long, value_parser = flags::ulimit)]
    ulimit: Vec<Ulimit>,
    /// Size of /dev/shm
    #[arg(long = "shm-size", value_parser = flags::memory, default_value = "0", hide_default_value = true)]
    shm_size: i64,
    /// Give extended privileges to this container
    #[arg(long)]
    privileged: bool,
    /// Add Linux capabilities
    #[arg(long = "cap-add")]
    cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long = "cap-drop")]
    cap_drop: Vec<String>,
    /// Security Options
    #[arg(long = "security-opt")]
    security_opt: Vec<String>,
    /// Add a host device to the container
    #[arg(long)]
    device: Vec<String>,
    /// Sysctl options
    #[arg(long)]
    sysctl: Vec<String>,
    /// Container host name
    #[arg(short = 'h', long, default_value = "", hide_default_value = true)]
    hostname: String,
    /// Container NIS domain name
    #[arg(long, default_value = "", hide_default_value = true)]
    domainname: String,
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long = "add-host", value_parser = flags::extra_host)]
    add_host: Vec<String>,
    /// Set custom DNS servers
    #[arg(long, value_parser = flags::address)]
    dns: Vec<String>,
    /// Set meta data on a container
    #[arg(short = 'l', long, value_parser = flags::label)]
    label: Vec<String>,
    /// Pull image before running ("always", "missing", "never")
    #[arg(long, default_value = "missing")]
    pull: String,
    /// Suppress the pull output
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, default_value = "", hide_default_value = true)]
    platform: String,
    /// Restart policy to apply when a container exits
    #[arg(long, default_value = "no")]
    restart: String,
    /// Signal to stop the container
    #[arg(long = "stop-signal")]
    stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long = "stop-timeout", value_parser = flags::integer)]
    stop_timeout: Option<i64>,
    /// Mount the container's root filesystem as read only
    #[arg(long = "read-only")]
    read_only: bool,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long)]
    init: bool,
    /// PID namespace to use
    #[arg(long, default_value = "", hide_default_value = true)]
    pid: String,
    /// IPC mode to use
    #[arg(long, default_value = "", hide_default_value = true)]
    ipc: String,
    /// UTS namespace to use
    #[arg(long, default_value = "", hide_default_value = true)]
    uts: String,
    /// Optional parent cgroup for the container
    #[arg(long = "cgroup-parent", default_value = "", hide_default_value = true)]
    cgroup_parent: String,
    /// Add additional groups to join
    #[arg(long = "group-add")]
    group_add: Vec<String>,
    /// Logging driver for the container
    #[arg(long = "log-driver", default_value = "", hide_default_value = true)]
    log_driver: String,
    /// Log driver options
    #[arg(long = "log-opt")]
    log_opt: Vec<String>,
    /// Runtime to use for this container
    #[arg(long)]
    runtime: Option<String>,
    /// Write the container ID to the file
    #[arg(long)]
    cidfile: Option<String>,
}

impl Create {
    pub(super) async fn run(self, context: &mut Context<'_>) -> Result<u8, CliError> {
        let request = self.request(false).map_err(|problem| problem.with_help("create"))?;
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

    /// The request, as the options describe it.
    pub(super) fn request(&self, detached: bool) -> Result<CreateRequest, CliError> {
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
        restart_policy(&flags.restart)?;
        if flags.remove && !matches!(flags.restart.as_str(), "no" | "") {
            return Err(CliError::Usage(
                "conflicting options: cannot specify both --restart and --rm".into(),
            ));
        }
        if flags.network.is_empty() {
            return Err(CliError::Usage("no name set for network".into()));
        }
        if flags.volume.iter().any(String::is_empty) {
            return Err(CliError::Usage("invalid empty volume spec".into()));
        }
        if flags.device.iter().any(String::is_empty) {
            return Err(CliError::Usage("bad format for path: ".into()));
        }
        let ports = flags::ports(&flags.publish)?;
        let mut exposed: BTreeMap<String, Empty> =
            ports.exposed.iter().map(|port| (port.clone(), Empty {})).collect();
        for port in &flags.expose {
            if port.contains(':') {
                return Err(CliError::Usage(format!("invalid port format for --expose: {port}")));
            }
            let opened = flags::ports(std::slice::from_ref(port)).map_err(|_| {
                let number = port.split('/').next().unwrap_or_default();
                CliError::Usage(format!(
                    "invalid range format for --expose: {port}, error: strconv.ParseUint: parsing {number:?}: invalid syntax"
                ))
            })?;
            exposed.extend(opened.exposed.into_iter().map(|port| (port, Empty {})));
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
            labels: Some(flags::pairs(&flags.label)),
            stop_signal: flags.stop_signal.clone(),
            stop_timeout: flags.stop_timeout,
            ..Config::default()
        };
        Ok(CreateRequest {
            config,
            host_config: Some(self.host_config(&ports, binds)?),
            networking_config: Some(NetworkingConfig::default()),
        })
    }

    fn host_config(
        &self,
        ports: &flags::Ports,
        binds: Vec<&String>,
    ) -> Result<HostConfig, CliError> {
        let flags = &self.flags;
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        let binds =
            binds.into_iter().map(|bind| absolute_bind(bind)).collect::<Result<Vec<_>, _>>()?;
        Ok(HostConfig {
            binds: some(&binds),
            container_id_file: flags.cidfile.clone().unwrap_or_default(),
            log_config: LogConfig {
                kind: flags.log_driver.clone(),
                config: flags::pairs(&flags.log_opt),
            },
            network_mode: flags.network.clone(),
            port_bindings: Some(ports.port_map()),
            restart_policy: restart_policy(&flags.restart)?,
            auto_remove: flags.remove,
            volumes_from: some(&flags.volumes_from),
            console_size: crate::terminal::size()
                .map(|(rows, columns)| [rows.into(), columns.into()]),
            cap_add: some(&flags.cap_add),
            cap_drop: some(&flags.cap_drop),
            dns: some(&flags.dns),
            extra_hosts: some(&flags.add_host),
            group_add: some(&flags.group_add),
            ipc_mode: flags.ipc.clone(),
            pid_mode: flags.pid.clone(),
            uts_mode: flags.uts.clone(),
            privileged: flags.privileged,
            publish_all_ports: flags.publish_all,
            readonly_rootfs: flags.read_only,
            security_opt: some(&security(&flags.security_opt)?),
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
            sysctls: (!flags.sysctl.is_empty()).then(|| flags::pairs(&flags.sysctl)),
            runtime: flags.runtime.clone(),
            init: flags.init.then_some(true),
            resources: Resources {
                cpu_shares: flags.cpu_shares,
                memory: flags.memory,
                memory_swap: flags.memory_swap,
                memory_reservation: flags.memory_reservation,
                nano_cpus: flags.cpus,
                cpuset_cpus: flags.cpuset_cpus.clone(),
                cgroup_parent: flags.cgroup_parent.clone(),
                pids_limit: flags.pids_limit,
                devices: (!flags.device.is_empty())
                    .then(|| flags.device.iter().map(|device| flags::device(device)).collect()),
                ulimits: (!flags.ulimit.is_empty()).then(|| flags.ulimit.clone()),
                ..Resources::default()
            },
            ..HostConfig::default()
        })
    }
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

fn restart_policy(text: &str) -> Result<RestartPolicy, CliError> {
    let (name, count) = text.split_once(':').unwrap_or((text, ""));
    let maximum_retry_count = if count.is_empty() {
        0
    } else {
        count.parse().map_err(|_| {
            CliError::Usage(
                "invalid restart policy format: maximum retry count must be an integer".into(),
            )
        })?
    };
    Ok(RestartPolicy { name: name.to_owned(), maximum_retry_count })
}
