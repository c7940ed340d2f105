//! `mounts add|remove ID FILE`: other mounts for a container that runs, as crun has it. The file is the
//! `mounts` array of a `config.json`; to remove, the destinations are enough.

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use rustix::fs::{Mode, OFlags};

use super::exec::differing_namespaces;
use super::{Globals, Usage, parse, program};
use crate::args::Order;
use crate::container::{Container, Status};
use crate::init::visit::{self, Change, Visit};
use crate::spec::mounts::{MountAction, PlannedMount, Surroundings, Tree};
use crate::spec::oci::Mount;
use crate::sys::clone::{Side, pidfd_open};
use crate::sys::host::Host;
use crate::sys::{self, errno_of, errno_text, file};

pub(crate) fn run(globals: &Globals, arguments: Vec<String>) -> anyhow::Result<u8> {
    let parsed = parse(arguments, &[], Order::Mixed)?;
    let [what, id, file] = parsed.words.as_slice() else {
        let text = format!("{}: \"mounts\" requires exactly 3 argument(s)", program());
        bail!(Usage(text));
    };
    let (container, _lock) = Container::load_locked(&globals.root, id)?;
    if matches!(container.status(), Status::Stopped | Status::Creating) {
        bail!("container not running");
    }
    let mounts = read(Path::new(file))?;
    let pidfd = pidfd_open(container.record.pid).map_err(|_| anyhow!("container not running"))?;
    let namespaces = differing_namespaces(container.record.pid)?;
    if !container.is_alive() {
        bail!("container not running");
    }
    if namespaces & libc::CLONE_NEWNS == 0 {
        bail!("the container has no mount namespace of its own");
    }
    let change = match what.as_str() {
        "add" => {
            let users = namespaces & libc::CLONE_NEWUSER != 0;
            let planned = mounts
                .iter()
                .map(|mount| prepare(&container, mount, users))
                .collect::<anyhow::Result<Vec<_>>>()?;
            Change::Add(planned)
        }
        "remove" => {
            // Compat: crun takes the root away, and nothing runs in the container any more.
            if mounts.iter().any(|mount| is_root(&mount.destination)) {
                bail!("the root of a container cannot be removed");
            }
            Change::Remove(mounts.into_iter().map(|mount| mount.destination).collect())
        }
        other => bail!(Usage(format!("{}: mounts: unknown action {other:?}", program()))),
    };
    apply(&change, pidfd, namespaces)?;
    Ok(0)
}

fn read(path: &Path) -> anyhow::Result<Vec<Mount>> {
    let bytes = file::read(path)
        .map_err(|error| anyhow!("open {}: {}", path.display(), errno_text(errno_of(&error))))?;
    // Compat: crun's sentence.
    if !bytes.trim_ascii_start().starts_with(b"[") {
        bail!("mounts must be an array");
    }
    let mounts: Vec<Mount> =
        serde_json::from_slice(&bytes).with_context(|| format!("parse {}", path.display()))?;
    if mounts.iter().any(|mount| mount.destination.is_empty()) {
        bail!("a mount has no destination");
    }
    Ok(mounts)
}

fn is_root(destination: &str) -> bool {
    Path::new("/").join(destination).components().all(|part| {
        use std::path::Component;
        matches!(part, Component::RootDir | Component::CurDir | Component::ParentDir)
    })
}

/// Whatever comes from the host is made out here; in there it only has to be attached.
fn prepare(container: &Container, mount: &Mount, users: bool) -> anyhow::Result<PlannedMount> {
    let record = &container.record;
    let namespace = users
        .then(|| {
            let path = format!("/proc/{}/ns/user", record.pid);
            rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        })
        .transpose()
        .context("open the user namespace of the container")?;
    let around = Surroundings {
        bundle: &record.bundle,
        rootfs: &record.rootfs,
        joined: namespace.as_ref().map(OwnedFd::as_fd),
        propagation: Some(libc::MS_PRIVATE | libc::MS_REC),
        user_namespace: users,
        unprivileged: false,
        mappings: (&[], &[]),
        label: "",
    };
    let mut planned = PlannedMount::new(mount, around)?;
    let failed = |call: &str, error: std::io::Error| {
        let source = if mount.source.is_empty() { &mount.kind } else { &mount.source };
        anyhow!("{call} {source}: {}", errno_text(errno_of(&error)))
    };
    match &mut planned.action {
        MountAction::Bind { tree: tree @ None, source, ids } => {
            let host = Host::of_the_runtime();
            let made = Tree::open(&host, source, &planned.options, around.propagation, users)
                .map_err(|error| failed("open_tree", error))?;
            if let Some(ids) = ids {
                made.map_ids(planned.options.recursive_idmap, ids.as_fd())
                    .map_err(|error| failed("id-mapped mount", error))?;
            }
            *tree = Some(made);
        }
        MountAction::Cgroup => bail!("not supported: a cgroup hierarchy for a running container"),
        MountAction::Bind { .. } | MountAction::Filesystem => {}
    }
    Ok(planned)
}

fn apply(change: &Change, pidfd: OwnedFd, namespaces: libc::c_int) -> anyhow::Result<()> {
    // Nobody in the container may look into us through its procfs.
    sys::identity::prctl(libc::PR_SET_DUMPABLE, 0).context("prctl PR_SET_DUMPABLE")?;
    if namespaces & libc::CLONE_NEWPID != 0 {
        // For the next child only.
        sys::clone::setns(pidfd.as_fd(), libc::CLONE_NEWPID)
            .map_err(|error| anyhow!("join the pid namespace: {}", errno_text(errno_of(&error))))?;
    }
    let (ours, theirs) = sys::socket::message_pair().context("socket")?;
    let namespaces = namespaces & !libc::CLONE_NEWPID;
    match sys::clone::clone(0, false).context("clone")? {
        Side::Child => {
            drop(ours);
            let host = Host::of_the_runtime();
            visit::visit(Visit { host, change, pidfd, namespaces, channel: theirs })
        }
        Side::Parent(pid) => {
            drop((theirs, pidfd));
            let told = sys::socket::receive(&ours).context("receive")?;
            sys::clone::wait(pid, true).context("wait")?;
            match told.split_first() {
                Some((&visit::DONE, _)) => Ok(()),
                Some((_, text)) => bail!("{}", String::from_utf8_lossy(text)),
                None => bail!("the process in the container's namespaces ended without a word"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_has_many_names() {
        for name in ["/", "", ".", "//", "/..", "../.."] {
            assert!(is_root(name), "{name:?}");
        }
        for name in ["/a", "a/..", "/proc"] {
            assert!(!is_root(name), "{name:?}");
        }
    }
}
