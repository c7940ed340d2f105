//! `guest floor PLAN`: what the kernel alone charges for a container: one clone, the steps of a plan,
//! exec, wait. No checks, no state, no seccomp filter, no capabilities.
//!
//! A plan has one step a line, fields parted by tabs, paths of the container from its root:
//! `root PATH`, `namespace net`, `group PATH` (a cgroup to make, join and remove), `mount SOURCE TYPE
//! PLACE FLAGS DATA`, `device PLACE MAJOR MINOR`, `late SOURCE TYPE PLACE FLAGS DATA` (a mount after the
//! root was changed), `exec PATH`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::CloneFlags;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{chdir, pivot_root};

use crate::sys;

struct Plan {
    root: PathBuf,
    namespaces: CloneFlags,
    groups: Vec<PathBuf>,
    steps: Vec<Vec<String>>,
    program: PathBuf,
}

pub(crate) fn floor(path: &str) -> io::Result<u8> {
    let plan = Plan::read(path)?;
    let (mut placed, mut place) = io::pipe()?;
    for group in &plan.groups {
        make_group(group)?;
    }
    let child = sys::clone(plan.namespaces, Signal::SIGCHLD, || {
        // Before the cgroups are joined nothing is made that they would count.
        let born = placed.read_exact(&mut [0]).and_then(|()| plan.enter());
        let error = born.err().unwrap_or_else(|| Command::new(&plan.program).exec());
        drop(writeln!(io::stderr(), "floor: {error}"));
        1
    })?;
    for group in &plan.groups {
        fs::write(group.join("cgroup.procs"), child.to_string())?;
    }
    place.write_all(b"!")?;
    let ended = waitpid(child, None)?;
    for group in &plan.groups {
        // The kernel lets go of a process a moment after it was reaped.
        while let Err(error) = fs::remove_dir(group) {
            if error.kind() != io::ErrorKind::ResourceBusy {
                return Err(error);
            }
            std::thread::yield_now();
        }
    }
    match ended {
        WaitStatus::Exited(_, 0) => Ok(0),
        other => Err(io::Error::other(format!("{other:?}"))),
    }
}

impl Plan {
    fn read(path: &str) -> io::Result<Self> {
        let mut plan = Self {
            root: PathBuf::new(),
            namespaces: CloneFlags::empty(),
            groups: Vec::new(),
            steps: Vec::new(),
            program: PathBuf::new(),
        };
        for line in fs::read_to_string(path)?.lines() {
            let fields: Vec<&str> = line.split('\t').collect();
            match fields[..] {
                ["root", path] => plan.root = path.into(),
                ["exec", path] => plan.program = path.into(),
                ["group", path] => plan.groups.push(path.into()),
                ["namespace", name] => plan.namespaces |= namespace(name)?,
                _ => plan.steps.push(fields.into_iter().map(str::to_owned).collect()),
            }
        }
        Ok(plan)
    }

    fn enter(&self) -> io::Result<()> {
        const NONE: Option<&str> = None;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE)?;
        let root = Some(&self.root);
        mount(root, &self.root, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
        self.steps(&self.root, "late")?;
        chdir(&self.root)?;
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
        self.steps(Path::new("/"), "mount")
    }

    fn steps(&self, root: &Path, but: &str) -> io::Result<()> {
        for step in self.steps.iter().filter(|step| step[0] != but) {
            let fields: Vec<&str> = step.iter().map(String::as_str).collect();
            let late = but == "mount";
            match fields[..] {
                ["device", place, major, minor] if !late => {
                    let device = makedev(number(major)?, number(minor)?);
                    mknod(
                        &beneath(root, place),
                        SFlag::S_IFCHR,
                        Mode::from_bits_truncate(0o666),
                        device,
                    )?;
                }
                ["device", ..] => {}
                [_, source, kind, place, flags, data] => {
                    let place = beneath(root, place);
                    let flags = MsFlags::from_bits_retain(number(flags)?);
                    let text = |word: &'_ str| (!word.is_empty()).then(|| word.to_owned());
                    let (source, kind, data) = (text(source), text(kind), text(data));
                    let go = || {
                        mount(source.as_deref(), &place, kind.as_deref(), flags, data.as_deref())
                    };
                    match go() {
                        // Below a file system that has just been mounted there are no directories.
                        Err(Errno::ENOENT) => {
                            fs::create_dir_all(&place)?;
                            go()?;
                        }
                        result => result?,
                    }
                }
                _ => return Err(io::Error::other(format!("no step: {step:?}"))),
            }
        }
        Ok(())
    }
}

/// With those above it, which stay: a cpuset starts empty, and takes nobody in like that.
fn make_group(group: &Path) -> io::Result<()> {
    let above = group.parent().ok_or(io::ErrorKind::InvalidInput)?;
    if !above.exists() {
        make_group(above)?;
    }
    fs::create_dir(group)?;
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if group.join(file).exists() {
            fs::write(group.join(file), fs::read(above.join(file))?)?;
        }
    }
    Ok(())
}

fn beneath(root: &Path, place: &str) -> PathBuf {
    root.join(place.trim_start_matches('/'))
}

fn namespace(name: &str) -> io::Result<CloneFlags> {
    Ok(match name {
        "cgroup" => CloneFlags::CLONE_NEWCGROUP,
        "ipc" => CloneFlags::CLONE_NEWIPC,
        "mount" => CloneFlags::CLONE_NEWNS,
        "network" => CloneFlags::CLONE_NEWNET,
        "pid" => CloneFlags::CLONE_NEWPID,
        "uts" => CloneFlags::CLONE_NEWUTS,
        _ => return Err(io::Error::other(format!("no namespace {name}"))),
    })
}

fn number<T: std::str::FromStr>(text: &str) -> io::Result<T> {
    text.parse().map_err(|_| io::Error::other(format!("no number: {text}")))
}
