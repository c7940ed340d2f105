//! The flags that `run` and `create` share.

use clap::Args;
use docker_api::container::{ThrottleDevice, Ulimit, WeightDevice};
use docker_api::mount::Mount;

use super::health::Health;
use super::limits::Limits;
use super::{flags, mount};

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
    pub(super) env: Vec<String>,
    /// Read in a file of environment variables
    #[arg(long = "env-file")]
    pub(super) env_file: Vec<String>,
    /// Bind mount a volume
    #[arg(short = 'v', long = "volume")]
    pub(super) volume: Vec<String>,
    /// Attach a filesystem mount to the container
    #[arg(long, value_parser = mount::mount)]
    pub(super) mount: Vec<Mount>,
    /// Mount volumes from the specified container(s)
    #[arg(long = "volumes-from")]
    pub(super) volumes_from: Vec<String>,
    /// Optional volume driver for the container
    #[arg(long = "volume-driver", default_value = "", hide_default_value = true)]
    pub(super) volume_driver: String,
    /// Mount a tmpfs directory
    #[arg(long)]
    pub(super) tmpfs: Vec<String>,
    /// Publish a container's port(s) to the host
    #[arg(short = 'p', long)]
    pub(super) publish: Vec<String>,
    /// Publish all exposed ports to random ports
    #[arg(short = 'P', long = "publish-all")]
    pub(super) publish_all: bool,
    /// Expose a port or a range of ports
    #[arg(long)]
    pub(super) expose: Vec<String>,
    /// Connect a container to a network
    #[arg(long, visible_alias = "net", default_value = "default", hide_default_value = true)]
    pub(super) network: String,
    /// Add network-scoped alias for the container
    #[arg(long = "network-alias", alias = "net-alias")]
    pub(super) network_alias: Vec<String>,
    /// IPv4 address (e.g., 172.30.100.104)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) ip: String,
    /// IPv6 address (e.g., 2001:db8::33)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) ip6: String,
    /// Container IPv4/IPv6 link-local addresses
    #[arg(long = "link-local-ip")]
    pub(super) link_local_ip: Vec<String>,
    /// Container MAC address (e.g., 92:d0:c6:0a:29:33)
    #[arg(long = "mac-address", default_value = "", hide_default_value = true)]
    pub(super) mac_address: String,
    /// Add link to another container
    #[arg(long, value_parser = flags::link)]
    pub(super) link: Vec<String>,
    /// Working directory inside the container
    #[arg(short = 'w', long, default_value = "", hide_default_value = true)]
    pub(super) workdir: String,
    /// Username or UID (format: <name|uid>[:<group|gid>])
    #[arg(short = 'u', long, default_value = "", hide_default_value = true)]
    pub(super) user: String,
    /// Overwrite the default ENTRYPOINT of the image
    #[arg(long)]
    pub(super) entrypoint: Option<String>,
    #[command(flatten)]
    pub(super) limits: Limits,
    /// Ulimit options
    #[arg(long, value_parser = flags::ulimit)]
    pub(super) ulimit: Vec<Ulimit>,
    /// Tune container memory swappiness (0 to 100)
    #[arg(long = "memory-swappiness", value_parser = flags::integer, default_value_t = -1, hide_default_value = true)]
    pub(super) memory_swappiness: i64,
    /// Disable OOM Killer
    #[arg(long = "oom-kill-disable")]
    pub(super) oom_kill_disable: bool,
    /// Tune host's OOM preferences (-1000 to 1000)
    #[arg(long = "oom-score-adj", value_parser = flags::integer, default_value_t = 0, hide_default_value = true)]
    pub(super) oom_score_adj: i64,
    /// Size of /dev/shm
    #[arg(long = "shm-size", value_parser = flags::memory, default_value = "0", hide_default_value = true)]
    pub(super) shm_size: i64,
    /// Give extended privileges to this container
    #[arg(long)]
    pub(super) privileged: bool,
    /// Add Linux capabilities
    #[arg(long = "cap-add")]
    pub(super) cap_add: Vec<String>,
    /// Drop Linux capabilities
    #[arg(long = "cap-drop")]
    pub(super) cap_drop: Vec<String>,
    /// Security Options
    #[arg(long = "security-opt")]
    pub(super) security_opt: Vec<String>,
    /// Add a host device to the container
    #[arg(long)]
    pub(super) device: Vec<String>,
    /// Add a rule to the cgroup allowed devices list
    #[arg(long = "device-cgroup-rule", value_parser = flags::device_rule)]
    pub(super) device_cgroup_rule: Vec<String>,
    /// Block IO weight (relative device weight)
    #[arg(long = "blkio-weight-device", value_parser = flags::device_weight)]
    pub(super) blkio_weight_device: Vec<WeightDevice>,
    /// Limit read rate (bytes per second) from a device
    #[arg(long = "device-read-bps", value_parser = flags::device_bytes)]
    pub(super) device_read_bps: Vec<ThrottleDevice>,
    /// Limit read rate (IO per second) from a device
    #[arg(long = "device-read-iops", value_parser = flags::device_operations)]
    pub(super) device_read_iops: Vec<ThrottleDevice>,
    /// Limit write rate (bytes per second) to a device
    #[arg(long = "device-write-bps", value_parser = flags::device_bytes)]
    pub(super) device_write_bps: Vec<ThrottleDevice>,
    /// Limit write rate (IO per second) to a device
    #[arg(long = "device-write-iops", value_parser = flags::device_operations)]
    pub(super) device_write_iops: Vec<ThrottleDevice>,
    /// Sysctl options
    #[arg(long, value_parser = flags::sysctl)]
    pub(super) sysctl: Vec<String>,
    /// Container host name
    #[arg(short = 'h', long, default_value = "", hide_default_value = true)]
    pub(super) hostname: String,
    /// Container NIS domain name
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) domainname: String,
    /// Add a custom host-to-IP mapping (host:ip)
    #[arg(long = "add-host", value_parser = flags::extra_host)]
    pub(super) add_host: Vec<String>,
    /// Set custom DNS servers
    #[arg(long, value_parser = flags::address)]
    pub(super) dns: Vec<String>,
    /// Set DNS options
    #[arg(long = "dns-option", alias = "dns-opt")]
    pub(super) dns_option: Vec<String>,
    /// Set custom DNS search domains
    #[arg(long = "dns-search")]
    pub(super) dns_search: Vec<String>,
    /// Set meta data on a container
    #[arg(short = 'l', long, value_parser = flags::label)]
    pub(super) label: Vec<String>,
    /// Read in a line delimited file of labels
    #[arg(long = "label-file")]
    pub(super) label_file: Vec<String>,
    /// Add an annotation to the container (passed through to the OCI runtime)
    #[arg(long)]
    pub(super) annotation: Vec<String>,
    /// Pull image before running ("always", "missing", "never")
    #[arg(long, default_value = "missing")]
    pub(super) pull: String,
    /// Suppress the pull output
    #[arg(short = 'q', long)]
    pub(super) quiet: bool,
    /// Set platform if server is multi-platform capable
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) platform: String,
    /// Restart policy to apply when a container exits
    #[arg(long, default_value = "no")]
    pub(super) restart: String,
    /// Signal to stop the container
    #[arg(long = "stop-signal")]
    pub(super) stop_signal: Option<String>,
    /// Timeout (in seconds) to stop a container
    #[arg(long = "stop-timeout", value_parser = flags::integer)]
    pub(super) stop_timeout: Option<i64>,
    /// Mount the container's root filesystem as read only
    #[arg(long = "read-only")]
    pub(super) read_only: bool,
    /// Run an init inside the container that forwards signals and reaps processes
    #[arg(long, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) init: Option<bool>,
    /// PID namespace to use
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) pid: String,
    /// IPC mode to use
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) ipc: String,
    /// UTS namespace to use
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) uts: String,
    /// Cgroup namespace to use (host|private)
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) cgroupns: String,
    /// User namespace to use
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) userns: String,
    /// Container isolation technology
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(super) isolation: String,
    /// Optional parent cgroup for the container
    #[arg(long = "cgroup-parent", default_value = "", hide_default_value = true)]
    pub(super) cgroup_parent: String,
    /// Add additional groups to join
    #[arg(long = "group-add")]
    pub(super) group_add: Vec<String>,
    /// Logging driver for the container
    #[arg(long = "log-driver", default_value = "", hide_default_value = true)]
    pub(super) log_driver: String,
    /// Log driver options
    #[arg(long = "log-opt")]
    pub(super) log_opt: Vec<String>,
    /// Storage driver options for the container
    #[arg(long = "storage-opt")]
    pub(super) storage_opt: Vec<String>,
    #[command(flatten)]
    pub(super) health: Health,
    /// Runtime to use for this container
    #[arg(long)]
    pub(super) runtime: Option<String>,
    /// Write the container ID to the file
    #[arg(long)]
    pub(super) cidfile: Option<String>,
}
