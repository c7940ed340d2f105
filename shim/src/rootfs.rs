//! The mounts that Create brings for the rootfs, in containerd's form (type, source, options as strings).

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::mount::MsFlags;
use nix::unistd::Pid;
use proto::containerd::types::Mount;

use crate::error::{TaskError, call_error, path_error};
use crate::sys;

/// A mount in the kernel's terms.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    source: CString,
    target: CString,
    kind: CString,
    flags: MsFlags,
    propagation: MsFlags,
    data: String,
}

/// Starts a child that mounts everything on `rootfs`; its exit status is 0 or an errno.
pub(crate) fn mount(mounts: &[Mount], rootfs: &Path) -> Result<Pid, TaskError> {
    match std::fs::create_dir(rootfs) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(path_error("create", rootfs)(error));
        }
        _ => {}
    }
    let mut plans = mounts.iter().map(|m| plan(m, rootfs)).collect::<Result<Vec<_>, _>>()?;
    let directory = match plans.as_mut_slice() {
        // The kernel takes a page of options: many layers only fit relative to their common parent.
        [single] if single.data.len() >= PAGE => shorten(single),
        _ => c"/".into(),
    };
    let data = plans
        .iter()
        .map(|plan| CString::new(plan.data.as_str()).map_err(|_| nul()))
        .collect::<Result<Vec<_>, _>>()?;
    if data.iter().any(|data| data.as_bytes().len() >= PAGE) {
        return Err(TaskError::Invalid("mount options do not fit into a page".to_owned()));
    }
    let ready: Vec<sys::Mount<'_>> = plans
        .iter()
        .zip(&data)
        .map(|(plan, data)| {
            let bind = plan.flags.contains(MsFlags::MS_BIND);
            let rest = plan.flags - (MsFlags::MS_BIND | MsFlags::MS_REC);
            sys::Mount {
                source: &plan.source,
                target: &plan.target,
                kind: &plan.kind,
                flags: plan.flags,
                propagation: plan.propagation,
                remount: (bind && !rest.is_empty()).then_some(plan.flags | MsFlags::MS_REMOUNT),
                data,
            }
        })
        .collect();
    sys::fork_mounts(&directory, &ready).map_err(call_error("fork"))
}

/// Starts a child that detaches whatever is mounted on `rootfs`.
pub(crate) fn unmount(rootfs: &Path) -> Result<Pid, TaskError> {
    let target = CString::new(rootfs.as_os_str().as_bytes()).map_err(|_| nul())?;
    sys::fork_unmount(&target).map_err(call_error("fork"))
}

fn plan(mount: &Mount, rootfs: &Path) -> Result<Plan, TaskError> {
    let mut flags = MsFlags::empty();
    let mut propagation = MsFlags::empty();
    let mut data = Vec::new();
    for option in &mount.options {
        match option.as_str() {
            "private" => propagation |= MsFlags::MS_PRIVATE,
            "rprivate" => propagation |= MsFlags::MS_PRIVATE | MsFlags::MS_REC,
            "shared" => propagation |= MsFlags::MS_SHARED,
            "rshared" => propagation |= MsFlags::MS_SHARED | MsFlags::MS_REC,
            "slave" => propagation |= MsFlags::MS_SLAVE,
            "rslave" => propagation |= MsFlags::MS_SLAVE | MsFlags::MS_REC,
            "unbindable" => propagation |= MsFlags::MS_UNBINDABLE,
            "loop" => {
                return Err(TaskError::Unimplemented("mount option loop".to_owned()));
            }
            name => match flag(name) {
                Some((bits, true)) => flags |= bits,
                Some((bits, false)) => flags -= bits,
                None => data.push(name.to_owned()),
            },
        }
    }
    if mount.r#type == "bind" {
        flags |= MsFlags::MS_BIND;
    }
    let target = if mount.target.is_empty() {
        rootfs.to_owned()
    } else {
        rootfs.join(mount.target.trim_start_matches('/'))
    };
    Ok(Plan {
        source: CString::new(mount.source.as_str()).map_err(|_| nul())?,
        target: CString::new(target.as_os_str().as_bytes()).map_err(|_| nul())?,
        kind: CString::new(mount.r#type.as_str()).map_err(|_| nul())?,
        flags,
        propagation,
        data: data.join(","),
    })
}

/// A mount flag by its fstab name, and whether the name sets or clears it.
fn flag(name: &str) -> Option<(MsFlags, bool)> {
    Some(match name {
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND | MsFlags::MS_REC, true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "mand" => (MsFlags::MS_MANDLOCK, true),
        "nomand" => (MsFlags::MS_MANDLOCK, false),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        "remount" => (MsFlags::MS_REMOUNT, true),
        "defaults" => (MsFlags::empty(), true),
        _ => return None,
    })
}

/// Makes the lower directories relative to their common parent, which is returned.
fn shorten(plan: &mut Plan) -> CString {
    let whole = || c"/".into();
    let Some(lower) = plan.data.split(',').find_map(|option| option.strip_prefix("lowerdir="))
    else {
        return whole();
    };
    let layers: Vec<&str> = lower.split(':').collect();
    let Some(first) = layers.first() else { return whole() };
    let mut common = first.rfind('/').map_or("", |end| &first[..=end]);
    while !common.is_empty() && !layers.iter().all(|layer| layer.starts_with(common)) {
        let parent = common.trim_end_matches('/').rfind('/');
        common = parent.map_or("", |end| &common[..=end]);
    }
    let Ok(directory) = CString::new(common) else { return whole() };
    if common.len() <= 1 {
        return whole();
    }
    let short: Vec<&str> = layers.iter().map(|layer| &layer[common.len()..]).collect();
    let short = format!("lowerdir={}", short.join(":"));
    plan.data = plan
        .data
        .split(',')
        .map(|option| if option.starts_with("lowerdir=") { short.as_str() } else { option })
        .collect::<Vec<_>>()
        .join(",");
    directory
}

fn nul() -> TaskError {
    TaskError::Invalid("mount contains a nul byte".to_owned())
}

const PAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn mount_of(kind: &str, options: &[&str]) -> Mount {
        Mount {
            r#type: kind.into(),
            source: kind.into(),
            target: String::new(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
        }
    }

    #[test]
    fn options_become_flags_and_data() {
        let plan = plan(
            &mount_of("overlay", &["ro", "index=off", "lowerdir=/a:/b", "rslave"]),
            Path::new("/r"),
        )
        .unwrap();
        assert_eq!(plan.flags, MsFlags::MS_RDONLY);
        assert_eq!(plan.propagation, MsFlags::MS_SLAVE | MsFlags::MS_REC);
        assert_eq!(plan.data, "index=off,lowerdir=/a:/b");
        assert_eq!(plan.target.as_c_str(), c"/r");
    }

    #[test]
    fn many_layers_are_named_relative_to_their_parent() {
        let layers: Vec<String> = (0..300).map(|n| format!("/var/lib/snapshots/{n}/fs")).collect();
        let lower = format!("lowerdir={}", layers.join(":"));
        let mut plan =
            plan(&mount_of("overlay", &["workdir=/w", &lower, "upperdir=/u"]), Path::new("/r"))
                .unwrap();
        assert_eq!(shorten(&mut plan).as_c_str(), c"/var/lib/snapshots/");
        assert!(plan.data.starts_with("workdir=/w,lowerdir=0/fs:1/fs:"));
        assert!(plan.data.ends_with("299/fs,upperdir=/u"));
        assert!(plan.data.len() < PAGE);
    }
}
