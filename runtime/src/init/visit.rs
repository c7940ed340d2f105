//! A short visit to a running container's namespaces, to change its mounts.
//!
//! Its processes are at work meanwhile and may exchange any directory for a link: what is mounted is
//! attached by descriptor, to what the kernel found below the container's root.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, ResolveFlags};

use super::mounts::{allowed_below_proc, check_below_proc, check_is_proc, inside_proc, set_late};
use super::{copy_up, namespaces};
use crate::spec::mounts::{MountAction, PlannedMount};
use crate::sys::host::Host;
use crate::sys::mount::{self, Target};
use crate::sys::path::{Name, PROC_MAGIC, RootFd, fs_magic, is_dir, mount_at};
use crate::sys::{self, errno_text};

#[derive(Debug)]
pub(crate) enum Change {
    /// All or none.
    Add(Vec<PlannedMount>),
    /// One after the other, up to the first that fails.
    Remove(Vec<String>),
}

#[derive(Debug)]
pub(crate) struct Visit<'a> {
    pub(crate) host: Host,
    pub(crate) change: &'a Change,
    /// Of the container's first process.
    pub(crate) pidfd: OwnedFd,
    /// `CLONE_NEW*` of those that differ from ours, the pid namespace excepted.
    pub(crate) namespaces: libc::c_int,
    pub(crate) channel: OwnedFd,
}

/// First byte of what is told; the other stands before a sentence.
pub(crate) const DONE: u8 = b'D';
const FAILED: u8 = b'F';

/// Never returns.
pub(crate) fn visit(visit: Visit<'_>) -> ! {
    let Visit { host, change, pidfd, namespaces, channel } = visit;
    // What is the runtime's, its lock above all, is not for those in there.
    let mut kept = vec![channel.as_raw_fd(), pidfd.as_raw_fd()];
    if let Change::Add(mounts) = change {
        kept.extend(mounts.iter().flat_map(PlannedMount::descriptors));
    }
    let closed = sys::process::close_all_but(3, &mut kept)
        .map_err(|error| format!("close descriptors: {}", text(&error)));
    let told = match closed.and_then(|()| changed(change, host, pidfd.as_fd(), namespaces)) {
        Ok(()) => vec![DONE],
        Err(text) => [&[FAILED], text.as_bytes()].concat(),
    };
    sys::clone::exit_now(i32::from(sys::socket::send(&channel, &told).is_err()))
}

fn changed(
    change: &Change,
    host: Host,
    pidfd: BorrowedFd<'_>,
    namespaces: libc::c_int,
) -> Result<(), String> {
    let told = |what: &str| {
        let what = what.to_owned();
        move |error: io::Error| format!("{what}: {}", text(&error))
    };
    sys::identity::set_umask(0);
    let inside = host.follow(pidfd, namespaces).map_err(told("join the container's namespaces"))?;
    if namespaces & libc::CLONE_NEWUSER != 0 {
        namespaces::become_root().map_err(|failure| failure.sentence())?;
    }
    let root = inside.root().map(RootFd::new).map_err(told("open /"))?;
    match change {
        Change::Add(mounts) => add_all(&root, mounts),
        Change::Remove(destinations) => destinations
            .iter()
            .try_for_each(|path| remove(&root, path).map_err(told(&format!("umount {path}")))),
    }
}

fn text(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(errno) => errno_text(errno),
        None => error.to_string(),
    }
}

fn add_all(root: &RootFd, mounts: &[PlannedMount]) -> Result<(), String> {
    let mut done: Vec<&str> = Vec::new();
    for planned in mounts {
        if let Err(error) = add(root, planned) {
            for destination in done.into_iter().rev() {
                // The failure that is told is the first one.
                drop(remove(root, destination));
            }
            let PlannedMount { source, kind, destination, .. } = planned;
            let from = if source.is_empty() { kind } else { source };
            return Err(format!("mount {from:?} on {destination:?}: {}", text(&error)));
        }
        done.push(&planned.destination);
    }
    Ok(())
}

fn add(root: &RootFd, planned: &PlannedMount) -> io::Result<()> {
    let PlannedMount { destination, options, action, .. } = planned;
    check_below_proc(planned)?;
    let made;
    let tree = match action {
        MountAction::Bind { tree: Some(tree), .. } => tree.as_fd(),
        MountAction::Filesystem => {
            made = filesystem(root, planned)?;
            made.as_fd()
        }
        MountAction::Bind { tree: None, .. } | MountAction::Cgroup => {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
        }
    };
    let target = if is_dir(tree)? {
        root.mkdir_all(destination, 0o755)?
    } else {
        root.create_file(destination)?
    };
    check_target(destination, target.as_fd())?;
    check_is_proc(destination, tree)?;
    match action {
        MountAction::Bind { tree: Some(tree), .. } => {
            tree.attach(target.as_fd(), options, Some(libc::MS_PRIVATE | libc::MS_REC))
        }
        _ => mount::attach(tree, target.as_fd()),
    }
}

/// A link must not lead to where the path itself may not, into whichever procfs: those in there may
/// have mounted one.
fn check_target(destination: &str, target: BorrowedFd<'_>) -> io::Result<()> {
    if fs_magic(target)? == PROC_MAGIC && !allowed_below_proc(destination) {
        return Err(inside_proc(destination));
    }
    Ok(())
}

/// A new filesystem that is attached nowhere, of these namespaces.
fn filesystem(root: &RootFd, planned: &PlannedMount) -> io::Result<OwnedFd> {
    let PlannedMount { destination, kind, source, options, .. } = planned;
    let attributes = options.bind_attributes().map_or(0, |attributes| attributes.set);
    let words: Vec<&str> = [
        (libc::MS_SYNCHRONOUS, "sync"),
        (libc::MS_DIRSYNC, "dirsync"),
        (libc::MS_LAZYTIME, "lazytime"),
    ]
    .iter()
    .filter(|(flag, _)| options.flags & flag != 0)
    .map(|(_, word)| *word)
    .chain(options.data.split(','))
    .filter(|word| !word.is_empty())
    .collect();
    let source = if source.is_empty() { kind } else { source };
    let tree = mount::filesystem(kind, source, &words)?;
    if options.copy_up && kind == "tmpfs" {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match root.open(destination, flags, ResolveFlags::IN_ROOT) {
            Ok(below) => copy_up::copy(&below, tree.as_fd())?,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    if attributes != 0 {
        mount::set_attributes(tree.as_fd(), attributes, 0, Target::Detached)?;
    }
    set_late(tree.as_fd(), options, Target::Detached)?;
    Ok(tree)
}

fn remove(root: &RootFd, destination: &str) -> io::Result<()> {
    let target = root.resolve(destination)?;
    let found = mount_at(target.as_fd())?;
    if !found.is_its_root || found.id == mount_at(root.as_fd())?.id {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if is_dir(target.as_fd())? {
        return mount::detach(target.as_fd());
    }
    // There is no way to name a file by its descriptor here: `/proc` is the container's. Its directory
    // can be named so, and whatever has the name in there by now, if it is no link.
    let place = root.place(destination)?;
    let (parent, name) = place.rsplit_once('/').unwrap_or(("", &place));
    mount::detach_beneath(root.resolve_no_links(parent)?.as_fd(), Name::new(name)?)
}
