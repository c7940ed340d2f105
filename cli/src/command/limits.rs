//! Limits of a container's resources, as `run`, `create` and `update` take them.

use clap::Args;
use docker_api::container::Resources;

use super::flags;

#[derive(Debug, Default, PartialEq, Eq, Args)]
pub(crate) struct Limits {
    /// Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)
    #[arg(long = "blkio-weight", value_parser = flags::weight)]
    blkio_weight: Option<u16>,
    /// Limit CPU CFS (Completely Fair Scheduler) period
    #[arg(long = "cpu-period", value_parser = flags::integer)]
    cpu_period: Option<i64>,
    /// Limit CPU CFS (Completely Fair Scheduler) quota
    #[arg(long = "cpu-quota", value_parser = flags::integer)]
    cpu_quota: Option<i64>,
    /// Limit CPU real-time period in microseconds
    #[arg(long = "cpu-rt-period", value_parser = flags::integer)]
    cpu_rt_period: Option<i64>,
    /// Limit CPU real-time runtime in microseconds
    #[arg(long = "cpu-rt-runtime", value_parser = flags::integer)]
    cpu_rt_runtime: Option<i64>,
    /// CPU shares (relative weight)
    #[arg(short = 'c', long = "cpu-shares", value_parser = flags::integer)]
    cpu_shares: Option<i64>,
    /// Number of CPUs
    #[arg(long, value_parser = flags::cpus)]
    cpus: Option<i64>,
    /// CPUs in which to allow execution (0-3, 0,1)
    #[arg(long = "cpuset-cpus")]
    cpuset_cpus: Option<String>,
    /// MEMs in which to allow execution (0-3, 0,1)
    #[arg(long = "cpuset-mems")]
    cpuset_mems: Option<String>,
    /// Memory limit
    #[arg(short = 'm', long, value_parser = flags::memory)]
    memory: Option<i64>,
    /// Memory soft limit
    #[arg(long = "memory-reservation", value_parser = flags::memory)]
    memory_reservation: Option<i64>,
    /// Swap limit equal to memory plus swap: '-1' to enable unlimited swap
    #[arg(long = "memory-swap", value_parser = flags::swap)]
    memory_swap: Option<i64>,
    /// Tune container pids limit (set -1 for unlimited)
    #[arg(long = "pids-limit", value_parser = flags::integer)]
    pids_limit: Option<i64>,
}

impl Limits {
    /// Whether none of them was given.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// In the API's form, where nothing is zero.
    pub(super) fn resources(&self) -> Resources {
        let number = |given: Option<i64>| given.unwrap_or(0);
        Resources {
            blkio_weight: self.blkio_weight.unwrap_or(0),
            cpu_period: number(self.cpu_period),
            cpu_quota: number(self.cpu_quota),
            cpu_realtime_period: number(self.cpu_rt_period),
            cpu_realtime_runtime: number(self.cpu_rt_runtime),
            cpu_shares: number(self.cpu_shares),
            nano_cpus: number(self.cpus),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
            memory: number(self.memory),
            memory_reservation: number(self.memory_reservation),
            memory_swap: number(self.memory_swap),
            pids_limit: self.pids_limit,
            ..Resources::default()
        }
    }
}
