//! The mounts of the specification, in its order, each on a descriptor below the root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;

use super::handshake::{Context as _, Failure, InitEnd, Step};
use crate::cgroup::CgroupMount;
use crate::spec::mounts::{MountAction, PlannedMount, Tree, add_label};
use crate::spec::options::MountOptions;
use crate::spec::plan::Plan;
use crate::sys::host::Host;
use crate::sys::mount::{self, Target};
use crate::sys::path::{
    Name, PROC_MAGIC, RootFd, create_beneath, fs_magic, is_dir, link_beneath, mkdir_beneath,
    mount_id, set_directory_mode,
};
use crate::sys::{self, errno_of, errno_text};

pub(super) fn mount_all(
    plan: &Plan,
    root: &RootFd,
    host: &Host,
    cgroup: Option<&CgroupMount>,
    channel: &InitEnd,
) -> Result<(), Failure> {
    for (number, planned) in plan.mounts.iter().enumerate() {
        let want = || channel.want(number);
        mount_one(plan, root, host, planned, cgroup, &want).map_err(|error| Failure {
            step: Step::Mount,
            errno: 0,
            detail: describe(planned, &error),
        })?;
    }
    Ok(())
}

fn describe(planned: &PlannedMount, error: &io::Error) -> String {
    let PlannedMount { source, destination, kind, options, .. } = planned;
    let from = if source.is_empty() { kind } else { source };
    let cause = match error.raw_os_error() {
        Some(errno) => errno_text(errno),
        None => error.to_string(),
    };
    format!(
        "{from:?} to rootfs at {destination:?}: mount {source}:{destination}, flags: {:#x}{}: {cause}",
        options.flags,
        if options.data.is_empty() { String::new() } else { format!(", data: {}", options.data) },
    )
}

fn mount_one(
    plan: &Plan,
    root: &RootFd,
    host: &Host,
    planned: &PlannedMount,
    cgroup: Option<&CgroupMount>,
    want: &dyn Fn() -> io::Result<OwnedFd>,
) -> io::Result<()> {
    let PlannedMount { destination, kind, source, options, action } = planned;
    check_below_proc(planned)?;
    match action {
        MountAction::Bind { tree, source, ids } => {
            let made;
            let tree = match tree {
                Some(tree) => tree,
                None if ids.is_some() && plan.has_user_namespace() => {
                    made = Tree::finished(want()?);
                    &made
                }
                None => {
                    made = Tree::open(
                        host,
                        source,
                        options,
                        plan.propagation,
                        plan.has_user_namespace(),
                    )?;
                    if let Some(ids) = ids {
                        made.map_ids(options.recursive_idmap, ids.as_fd())?;
                    }
                    &made
                }
            };
            let target = if is_dir(tree.as_fd())? {
                root.mkdir_all(destination, 0o755)?
            } else {
                root.create_file(destination)?
            };
            check_not_in_proc(root, planned, target.as_fd())?;
            check_is_proc(destination, tree.as_fd())?;
            return tree.attach(target.as_fd(), options, plan.propagation);
        }
        MountAction::Cgroup => {
            let cgroup = cgroup.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?;
            mount_cgroup(plan, root, host, planned, cgroup)?;
        }
        MountAction::Filesystem => {
            let existed = root.resolve(destination).is_ok();
            let special = kind == "proc" || kind == "sysfs";
            // Labels and sysctls are written below: it must be where it says it is.
            let elsewhere = || {
                io::Error::other(format!(
                    "filesystem {kind:?} must be mounted on ordinary directory"
                ))
            };
            if special
                && let Err(error) = root.resolve_no_links(destination)
                && error.raw_os_error() != Some(libc::ENOENT)
            {
                return Err(elsewhere());
            }
            let mut target = root.mkdir_all(destination, 0o755)?;
            if special {
                target = root.resolve_no_links(destination).map_err(|_| elsewhere())?;
            }
            check_not_in_proc(root, planned, target.as_fd())?;
            let mut flags = options.flags;
            if kind == "tmpfs" {
                flags &= !libc::MS_RDONLY;
            }
            let from = if source.is_empty() { kind } else { source };
            // Compat: a tmpfs without a mode takes the mode of the directory it covers.
            let has_mode = options.data.split(',').any(|option| option.starts_with("mode="));
            let data = if kind == "tmpfs" && existed && !has_mode {
                let mode = rustix::fs::fstat(&target)?.st_mode & 0o7777;
                let comma = if options.data.is_empty() { "" } else { "," };
                &format!("{}{comma}mode={mode:o}", options.data)
            } else {
                &options.data
            };
            if options.copy_up && kind == "tmpfs" {
                let below = root.open(
                    destination,
                    OFlags::RDONLY | OFlags::DIRECTORY,
                    rustix::fs::ResolveFlags::IN_ROOT,
                )?;
                mount::mount_on(from, target.as_fd(), kind, flags, data)?;
                let above = root.resolve(destination)?;
                super::copy_up::copy(&below, above.as_fd())?;
            } else {
                mount::mount_on(from, target.as_fd(), kind, flags, data)?;
            }
            if kind == "mqueue" && !plan.mount_label.is_empty() {
                let queues = root.resolve(destination)?;
                sys::label::set_file_label(queues.as_fd(), &plan.mount_label).map_err(|error| {
                    io::Error::other(format!("set label: {}", errno_text(errno_of(&error))))
                })?;
            }
        }
    }
    if options.propagation.is_empty() && options.recursive_set | options.recursive_clear == 0 {
        return Ok(());
    }
    let mounted = root.resolve(destination)?;
    set_late(mounted.as_fd(), options, Target::Attached)
}

/// What a mount gets once it is there: attributes of all below it, and its propagation.
pub(super) fn set_late(
    mounted: BorrowedFd<'_>,
    options: &MountOptions,
    target: Target,
) -> io::Result<()> {
    let (set, clear) = (options.recursive_set, options.recursive_clear);
    if set | clear != 0 {
        mount::set_recursive_attributes(mounted, set, clear)?;
    }
    for flags in &options.propagation {
        let recursive = flags & libc::MS_REC != 0;
        mount::set_propagation(mounted, recursive, flags & !libc::MS_REC, target)?;
    }
    Ok(())
}

/// The part of a destination below `/proc`, if it is there.
fn in_proc(destination: &str) -> Option<&str> {
    let rest = destination.trim_start_matches('/').strip_prefix("proc")?;
    if rest.is_empty() {
        Some("")
    } else {
        rest.strip_prefix('/').map(|rest| rest.trim_matches('/'))
    }
}

/// Only known files of `/proc` may be covered; others would deceive us or the container.
pub(super) fn check_below_proc(planned: &PlannedMount) -> io::Result<()> {
    let bind = matches!(planned.action, MountAction::Bind { .. });
    match in_proc(&planned.destination) {
        Some("") if bind || planned.kind == "proc" => Ok(()),
        Some(rest) if !rest.is_empty() && allowed_below_proc(&planned.destination) => Ok(()),
        Some(_) => Err(inside_proc(&planned.destination)),
        None => Ok(()),
    }
}

/// Whether this names `/proc` or a file of it that may be covered.
pub(super) fn allowed_below_proc(destination: &str) -> bool {
    const ALLOWED: [&str; 12] = [
        "cpuinfo",
        "diskstats",
        "meminfo",
        "stat",
        "swaps",
        "uptime",
        "loadavg",
        "slabinfo",
        "net/dev",
        "sys/kernel/ns_last_pid",
        "sys/crypto/fips_enabled",
        "",
    ];
    in_proc(destination).is_some_and(|rest| ALLOWED.contains(&rest))
}

/// What covers `/proc` itself.
pub(super) fn check_is_proc(destination: &str, tree: BorrowedFd<'_>) -> io::Result<()> {
    if in_proc(destination) == Some("") && fs_magic(tree)? != PROC_MAGIC {
        return Err(io::Error::other("/proc can only be a procfs"));
    }
    Ok(())
}

/// A link, or a way round, may lead there under another name.
fn check_not_in_proc(
    root: &RootFd,
    planned: &PlannedMount,
    target: BorrowedFd<'_>,
) -> io::Result<()> {
    if in_proc(&planned.destination).is_some() || fs_magic(target)? != PROC_MAGIC {
        return Ok(());
    }
    // Another procfs, mounted elsewhere, is the specification's affair.
    match root.resolve_no_links("/proc") {
        Ok(own) if mount_id(own.as_fd())? == mount_id(target)? => {
            Err(inside_proc(&planned.destination))
        }
        _ => Ok(()),
    }
}

pub(super) fn inside_proc(destination: &str) -> io::Error {
    io::Error::other(format!("{destination:?} cannot be mounted because it is inside /proc"))
}

fn mount_cgroup(
    plan: &Plan,
    root: &RootFd,
    host: &Host,
    planned: &PlannedMount,
    cgroup: &CgroupMount,
) -> io::Result<()> {
    let target = root.mkdir_all(&planned.destination, 0o755)?;
    check_not_in_proc(root, planned, target.as_fd())?;
    let flags = planned.options.flags;
    let attributes = mount::ATTR_NOSUID
        | mount::ATTR_NODEV
        | mount::ATTR_NOEXEC
        | if planned.options.is_read_only() { mount::ATTR_RDONLY } else { 0 };
    match cgroup {
        CgroupMount::V2 { bind } => {
            let fresh = mount::mount_on("cgroup", target.as_fd(), "cgroup2", flags, "");
            match fresh {
                Err(error) if matches!(errno_of(&error), libc::EPERM | libc::EBUSY) => match bind {
                    Some(bind) => bind_host(host, bind, target.as_fd(), attributes),
                    None => mount::mount_on("tmpfs", target.as_fd(), "tmpfs", libc::MS_RDONLY, ""),
                },
                result => result,
            }
        }
        CgroupMount::V1 { binds, links, fresh, unified } => {
            let mode = rustix::fs::fstat(&target)?.st_mode & 0o7777;
            let mut data = "mode=755".to_owned();
            add_label(&mut data, "tmpfs", &plan.mount_label);
            let writable = flags & !libc::MS_RDONLY;
            mount::mount_on("tmpfs", target.as_fd(), "tmpfs", writable, &data)?;
            let dir = root.resolve(&planned.destination)?;
            if plan.new_cgroup_namespace {
                for (data, name) in fresh {
                    let below = mkdir_beneath(dir.as_fd(), Name::new(name)?, 0o755)?;
                    // Compat: a named hierarchy shows its name as the source.
                    let source = data.strip_prefix("none,name=").unwrap_or("cgroup");
                    mount::mount_on(source, below.as_fd(), "cgroup", flags, data)?;
                }
            } else {
                for (from, name) in binds {
                    let below = mkdir_beneath(dir.as_fd(), Name::new(name)?, 0o755)?;
                    bind_host(host, from, below.as_fd(), attributes)?;
                }
            }
            if let Some((from, name)) = unified {
                let below = mkdir_beneath(dir.as_fd(), Name::new(name)?, 0o755)?;
                if plan.new_cgroup_namespace {
                    mount::mount_on("cgroup", below.as_fd(), "cgroup2", flags, "")?;
                } else {
                    bind_host(host, from, below.as_fd(), attributes)?;
                }
            }
            for (name, to) in links {
                link_beneath(dir.as_fd(), Name::new(name)?, to)?;
            }
            // Compat: runc leaves the tmpfs itself writable, the hierarchies are not; its mode is that
            // of the directory it covers.
            set_directory_mode(dir.as_fd(), mode)
        }
    }
}

fn bind_host(host: &Host, from: &Path, target: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let tree = host.tree(from, false)?;
    mount::attach_with(tree.as_fd(), target, attributes)
}

/// What could be made read-only only after we had written to it.
pub(super) fn finish_read_only(plan: &Plan, root: &RootFd) -> Result<(), Failure> {
    for planned in &plan.mounts {
        if planned.kind == "tmpfs"
            && planned.options.is_read_only()
            && matches!(planned.action, MountAction::Filesystem)
        {
            root.resolve(&planned.destination)
                .and_then(|fd| {
                    mount::set_attributes(fd.as_fd(), mount::ATTR_RDONLY, 0, Target::Attached)
                })
                .step(Step::ReadonlyPath, &planned.destination)?;
        }
    }
    Ok(())
}

/// The terminal's device as `/dev/console`, by descriptor.
pub(super) fn bind_console(root: &RootFd, terminal: BorrowedFd<'_>) -> io::Result<()> {
    let dev = root.resolve_no_links("/dev")?;
    if !is_dir(dev.as_fd())? {
        return Err(io::Error::from_raw_os_error(libc::ENOTDIR));
    }
    let target = create_beneath(dev.as_fd(), Name::new("console")?)?;
    let tree = mount::copy_of(terminal, false)?;
    mount::attach(tree.as_fd(), target.as_fd())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_below_proc_are_recognised() {
        assert_eq!(in_proc("/proc"), Some(""));
        assert_eq!(in_proc("/proc/"), Some(""));
        assert_eq!(in_proc("//proc/net/dev"), Some("net/dev"));
        assert_eq!(in_proc("/process"), None);
        assert_eq!(in_proc("/srv"), None);
    }
}
