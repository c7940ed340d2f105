//! For the same request our container equals stock's, field by field, seen from inside (`probe.sh`)
//! and from the host: namespaces, capabilities, seccomp, mounts, cgroups, limits, environment, files,
//! devices, network, and what inspect says.
//!
//! Each group of `cases` is compared twice: with golden values that stock left once (`golden`), and
//! with stock itself in the same run (`live`), which leaves nothing out. `known` has what differs.
#![allow(clippy::unwrap_used, reason = "tests")]

mod cases;
mod facts;
mod golden;
mod holding;
mod host;
mod known;
mod live;
mod names;
mod portable;
mod probe;
mod world;

macro_rules! groups {
    ($($test:ident $group:literal)*) => {
        mod as_recorded {
            $(#[test] fn $test() { crate::golden::group($group); })*
        }
        mod beside_stock {
            $(#[test] fn $test() { crate::live::group($group); })*
        }
    };
}

groups! {
    without_a_request_all_is_the_default "default"
    processes_are_as_asked_for "process"
    settings_are_taken_over "settings"
    capabilities_are_given_and_taken "capabilities"
    security_is_as_asked_for "security"
    namespaces_are_shared_or_own "namespaces"
    shared_memory_and_queues_are_shared_or_own "ipc"
    names_cgroups_and_sysctls_are_their_own "names"
    the_root_and_memory_are_mounted "mounts"
    directories_of_the_host_are_bound "binds"
    mounts_that_are_described_are_made "described"
    volumes_are_mounted "volumes"
    devices_are_let_in "devices"
    memory_and_pids_are_limited "memory"
    processors_and_disks_are_limited "processors"
    files_tell_of_the_network "resolving"
    ports_and_addresses_are_as_asked_for "ports"
}
