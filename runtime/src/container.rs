//! A container as later commands find it: its directory, its record, its state by the kernel.
//!
//! ```text
//! <root>/<id>/            0711, locked (flock) by create, start, delete
//!     state.json          written by rename; once before the birth, once after
//!     seccomp.bpf         the compiled filter, for exec
//!     .exec.fifo          exists until created
//!     exec.fifo           the same from then on, until start
//!     notify/notify.sock  while who started it waits for readiness
//! ```

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroup, Unit};
use crate::resctrl;
use crate::seccomp::Program;
use crate::spec::oci::{Hooks, LinuxResources};
use crate::spec::process::Inherited;
use crate::sys::{errno_of, errno_text, file};

pub(crate) const OCI_VERSION: &str = "1.3.0";

#[derive(Debug, thiserror::Error)]
pub(crate) enum ContainerError {
    // Compat: callers match these three.
    #[error("container does not exist")]
    NotFound,
    #[error("container with given ID already exists")]
    Exists,
    #[error("container id cannot be empty")]
    EmptyId,
    #[error("invalid container ID format")]
    InvalidId,
    #[error("{} was made by another runtime; use that one", .0.display())]
    Foreign(PathBuf),
    #[error("{call} {}: {}", path.display(), errno_text(errno_of(cause)))]
    Io { call: &'static str, path: PathBuf, cause: io::Error },
    #[error("{}: {cause}", path.display())]
    Json { path: PathBuf, cause: serde_json::Error },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    Creating,
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// What state.json holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// Tells our records from another runtime's.
    pub(crate) runtime: String,
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) pid: i32,
    /// Of the first process, in clock ticks since boot: pids come again.
    pub(crate) start_time: u64,
    pub(crate) created: String,
    pub(crate) bundle: PathBuf,
    /// "" in records of before there was a choice.
    pub(crate) config: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) hooks: Hooks,
    pub(crate) cgroup_paths: BTreeMap<String, PathBuf>,
    /// Of systemd's, where that made the cgroups.
    pub(crate) unit: Option<Unit>,
    /// All of it is known. Created is what has its fifo under the final name.
    pub(crate) complete: bool,
    pub(crate) new_keyring: bool,
    /// What the standard streams were when it was made, for a checkpoint.
    pub(crate) descriptors: Vec<String>,
    pub(crate) seccomp_flags: u32,
    pub(crate) seccomp_notifies: bool,
    pub(crate) inherited: Inherited,
    /// Its share of cache and memory bandwidth.
    pub(crate) resctrl: Option<resctrl::Group>,
    /// The limits that hold now, devices excepted.
    pub(crate) resources: LinuxResources,
    /// Nothing outlives the first process of a pid namespace of its own.
    pub(crate) private_pids: bool,
    /// Who made it may have had no right to cgroups.
    pub(crate) optional_cgroups: bool,
}

const RUNTIME: &str = "runc-rs";
const RECORD_VERSION: u32 = 1;

#[derive(Debug)]
pub(crate) struct Container {
    dir: PathBuf,
    pub(crate) record: Record,
}

/// Held while a container changes.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it unlocks")] OwnedFd);

/// What is shown of a container; field order as runc's.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    #[serde(rename = "ociVersion")]
    pub(crate) oci_version: &'static str,
    pub(crate) id: String,
    pub(crate) pid: i32,
    pub(crate) status: &'static str,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) owner: String,
}

impl Container {
    /// Makes the directory; the lock is held until the caller is done.
    pub(crate) fn create(root: &Path, record: Record) -> Result<(Self, Lock), ContainerError> {
        check_id(&record.id)?;
        let mut builder = DirBuilder::new();
        builder.mode(0o711).recursive(true);
        builder.create(root).map_err(|cause| io_error("mkdir", root, cause))?;
        builder.recursive(false);
        let dir = root.join(&record.id);
        builder.create(&dir).map_err(|cause| match cause.kind() {
            io::ErrorKind::AlreadyExists => ContainerError::Exists,
            _ => io_error("mkdir", &dir, cause),
        })?;
        let container = Self {
            dir,
            record: Record { runtime: RUNTIME.to_owned(), version: RECORD_VERSION, ..record },
        };
        let lock = container.lock()?;
        Ok((container, lock))
    }

    pub(crate) fn load(root: &Path, id: &str) -> Result<Self, ContainerError> {
        check_id(id)?;
        let dir = root.join(id);
        let path = dir.join("state.json");
        let text = file::read(&path).map_err(|cause| match cause.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ContainerError::NotFound,
            _ => io_error("open", &path, cause),
        })?;
        let record: Record = match serde_json::from_slice(&text) {
            Ok(record) => record,
            // Another runtime's fields may have other shapes altogether.
            Err(cause) => {
                let ours = serde_json::from_slice::<serde_json::Value>(&text)
                    .is_ok_and(|value| value["runtime"] == RUNTIME);
                return Err(if ours {
                    ContainerError::Json { path, cause }
                } else {
                    ContainerError::Foreign(dir)
                });
            }
        };
        if record.runtime != RUNTIME || record.version > RECORD_VERSION {
            return Err(ContainerError::Foreign(dir));
        }
        Ok(Self { dir, record })
    }

    pub(crate) fn list(root: &Path) -> Result<Vec<Self>, ContainerError> {
        let entries = match fs::read_dir(root) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(io_error("open", root, cause)),
        };
        let mut containers: Vec<_> = entries
            .filter_map(|entry| Self::load(root, entry.ok()?.file_name().to_str()?).ok())
            .collect();
        containers.sort_by(|a, b| a.record.id.cmp(&b.record.id));
        Ok(containers)
    }

    /// Locked first, then read: nobody else changes it until the lock goes.
    pub(crate) fn load_locked(root: &Path, id: &str) -> Result<(Self, Lock), ContainerError> {
        check_id(id)?;
        let lock = lock(&root.join(id))?;
        Ok((Self::load(root, id)?, lock))
    }

    pub(crate) fn lock(&self) -> Result<Lock, ContainerError> {
        lock(&self.dir)
    }

    pub(crate) fn save(&self) -> Result<(), ContainerError> {
        let path = self.dir.join("state.json");
        let text = serde_json::to_vec(&self.record)
            .map_err(|cause| ContainerError::Json { path: path.clone(), cause })?;
        write_by_rename(&path, &text, 0o600)
    }

    pub(crate) fn fifo_path(&self) -> PathBuf {
        self.dir.join("exec.fifo")
    }

    /// Where the container finds who listens for its readiness.
    pub(crate) fn notify_dir(&self) -> PathBuf {
        self.dir.join("notify")
    }

    pub(crate) fn unannounced_fifo_path(&self) -> PathBuf {
        self.dir.join(".exec.fifo")
    }

    /// A directory of the container's own, for a while.
    pub(crate) fn make_directory(&self, name: &str) -> Result<PathBuf, ContainerError> {
        let path = self.dir.join(name);
        fs::create_dir(&path).map_err(|cause| io_error("mkdir", &path, cause))?;
        Ok(path)
    }

    /// From now on the container counts as created.
    pub(crate) fn announce(&self) -> Result<(), ContainerError> {
        let path = self.fifo_path();
        rustix::fs::rename(self.unannounced_fifo_path(), &path)
            .map_err(|errno| io_error("rename", &path, errno.into()))
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        Cgroup::load(self.record.cgroup_paths.clone()).of_unit(self.record.unit.clone())
    }

    /// The compiled filter as exec will want it.
    pub(crate) fn save_filter(&self, program: &Program) -> Result<(), ContainerError> {
        let mut bytes = Vec::with_capacity(program.instructions.len() * 8);
        for instruction in &program.instructions {
            bytes.extend(instruction.code.to_ne_bytes());
            bytes.extend([instruction.jt, instruction.jf]);
            bytes.extend(instruction.k.to_ne_bytes());
        }
        // Nobody reads it before the container counts as created.
        let path = self.dir.join("seccomp.bpf");
        write_new(&path, &bytes, 0o600).map_err(|cause| io_error("write", &path, cause))
    }

    pub(crate) fn load_filter(&self) -> Result<Option<Program>, ContainerError> {
        let path = self.dir.join("seccomp.bpf");
        let bytes = match file::read(&path) {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(io_error("open", &path, cause)),
        };
        let instructions = bytes
            .chunks_exact(8)
            .map(|part| libc::sock_filter {
                code: u16::from_ne_bytes([part[0], part[1]]),
                jt: part[2],
                jf: part[3],
                k: u32::from_ne_bytes([part[4], part[5], part[6], part[7]]),
            })
            .collect();
        Ok(Some(Program {
            instructions,
            flags: self.record.seccomp_flags,
            needs_listener: self.record.seccomp_notifies,
        }))
    }

    /// Whether the first process is the one we made and not yet dead.
    pub(crate) fn is_alive(&self) -> bool {
        self.record.pid > 0
            && process_stat(self.record.pid)
                .is_some_and(|stat| !stat.dead && stat.start_time == self.record.start_time)
    }

    pub(crate) fn status(&self) -> Status {
        if !self.is_alive() {
            return Status::Stopped;
        }
        if !self.record.complete {
            return Status::Creating;
        }
        if self.waits_for_start() {
            return Status::Created;
        }
        if rustix::fs::stat(self.unannounced_fifo_path()).is_ok() {
            return Status::Creating;
        }
        if self.cgroup().is_frozen().unwrap_or(false) { Status::Paused } else { Status::Running }
    }

    /// Whether init reads from its fifo. The file alone does not say so: a `start` that was killed
    /// leaves it behind.
    fn waits_for_start(&self) -> bool {
        let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(self.fifo_path(), flags, Mode::empty()).is_ok()
    }

    pub(crate) fn shown(&self) -> Shown {
        self.shown_with(String::new())
    }

    /// Compat: only `list` names the owner.
    pub(crate) fn listed(&self) -> Shown {
        let uid = fs::metadata(&self.dir).map(|metadata| metadata.uid()).unwrap_or(0);
        self.shown_with(user_name(uid))
    }

    fn shown_with(&self, owner: String) -> Shown {
        let status = self.status();
        Shown {
            oci_version: OCI_VERSION,
            id: self.record.id.clone(),
            // Compat: a stopped container has no pid.
            pid: if status == Status::Stopped { 0 } else { self.record.pid },
            status: status.name(),
            bundle: self.record.bundle.clone(),
            rootfs: self.record.rootfs.clone(),
            created: self.record.created.clone(),
            annotations: self.record.annotations.clone(),
            owner,
        }
    }

    pub(crate) fn dir_exists(&self) -> bool {
        self.dir.exists()
    }

    pub(crate) fn remove(&self) -> Result<(), ContainerError> {
        match fs::remove_dir_all(&self.dir) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(io_error("remove", &self.dir, cause))
            }
            _ => Ok(()),
        }
    }
}

impl Record {
    pub(crate) fn config_path(&self) -> PathBuf {
        match self.config.as_os_str().is_empty() {
            true => self.bundle.join("config.json"),
            false => self.config.clone(),
        }
    }

    /// The state that hooks read.
    pub(crate) fn hook_state(&self, status: &str, pid: i32) -> Vec<u8> {
        let mut state = serde_json::json!({
            "ociVersion": OCI_VERSION,
            "id": self.id,
            "status": status,
            "bundle": self.bundle,
        });
        if pid > 0 {
            state["pid"] = pid.into();
        }
        if !self.annotations.is_empty() {
            state["annotations"] =
                serde_json::to_value(&self.annotations).unwrap_or(serde_json::Value::Null);
        }
        state.to_string().into_bytes()
    }
}

/// Waits for whoever is at work in `dir`.
pub(crate) fn lock(dir: &Path) -> Result<Lock, ContainerError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |errno: rustix::io::Errno| match errno {
        rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => ContainerError::NotFound,
        _ => io_error("lock", dir, errno.into()),
    };
    loop {
        let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(failed)?;
        rustix::fs::flock(&fd, FlockOperation::LockExclusive).map_err(failed)?;
        // It may have been deleted, and made again, while we waited.
        let ours = rustix::fs::fstat(&fd).map_err(failed)?;
        let there = rustix::fs::stat(dir).map_err(failed)?;
        if (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino) {
            return Ok(Lock(fd));
        }
    }
}

/// Letters, digits and `_+-.`; the id becomes a directory and a cgroup.
pub(crate) fn check_id(id: &str) -> Result<(), ContainerError> {
    if id.is_empty() {
        return Err(ContainerError::EmptyId);
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_+-.".contains(c);
    if id.is_empty() || id == "." || id == ".." || !id.chars().all(allowed) {
        return Err(ContainerError::InvalidId);
    }
    Ok(())
}

pub(crate) fn write_by_rename(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ContainerError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    write_new(&temporary, bytes, mode)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(|cause| io_error("write", path, cause))
}

/// A file of our own: what bears the name goes, be it a link or what a kill has left.
fn write_new(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let make = || rustix::fs::open(path, flags, Mode::from_raw_mode(mode));
    let fd = match make() {
        Err(rustix::io::Errno::EXIST) => {
            rustix::fs::unlink(path)?;
            make()?
        }
        made => made?,
    };
    fs::File::from(fd).write_all(bytes)
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ProcessStat {
    pub(crate) dead: bool,
    pub(crate) start_time: u64,
}

pub(crate) fn process_stat(pid: i32) -> Option<ProcessStat> {
    parse_stat(&String::from_utf8_lossy(&file::read(Path::new(&format!("/proc/{pid}/stat"))).ok()?))
}

/// See proc_pid_stat(5); the name in parentheses may hold anything.
fn parse_stat(text: &str) -> Option<ProcessStat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let state = *fields.first()?;
    Some(ProcessStat {
        dead: matches!(state, "Z" | "X" | "x"),
        start_time: fields.get(19)?.parse().ok()?,
    })
}

fn user_name(uid: u32) -> String {
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    name_of(&String::from_utf8_lossy(&passwd), uid).unwrap_or_else(|| format!("#{uid}"))
}

fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn io_error(call: &'static str, path: &Path, cause: io::Error) -> ContainerError {
    ContainerError::Io { call, path: path.to_owned(), cause }
}

#[cfg(test)]
mod foreign;

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        Record { id: id.to_owned(), ..Default::default() }
    }

    #[test]
    fn an_id_is_made_of_harmless_letters() {
        for good in ["a", "a.b-c_d+e", "0123"] {
            assert!(check_id(good).is_ok(), "{good}");
        }
        for bad in [".", "..", "a/b", "a b", "ä"] {
            assert_eq!(check_id(bad).unwrap_err().to_string(), "invalid container ID format");
        }
    }

    #[test]
    fn a_container_is_made_once_and_found_again() {
        let root = tempfile::tempdir().unwrap();
        let (container, _lock) = Container::create(root.path(), record("c1")).unwrap();
        container.save().unwrap();
        let again = Container::create(root.path(), record("c1")).unwrap_err();
        assert_eq!(again.to_string(), "container with given ID already exists");
        let found = Container::load(root.path(), "c1").unwrap();
        assert_eq!(found.status(), Status::Stopped);
        found.remove().unwrap();
        assert!(matches!(Container::load(root.path(), "c1"), Err(ContainerError::NotFound)));
    }

    #[test]
    fn another_runtimes_state_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("c1")).unwrap();
        for text in [r#"{"id":"c1","init_process_pid":7,"created":"2026"}"#, r#"{"pid":"x"}"#] {
            fs::write(root.path().join("c1/state.json"), text).unwrap();
            assert!(matches!(Container::load(root.path(), "c1"), Err(ContainerError::Foreign(_))));
        }
    }

    #[test]
    fn a_process_name_with_parentheses_is_skipped() {
        let text = "7 (a) b) Z 1 7 7 0 -1 4 0 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(parse_stat(text), Some(ProcessStat { dead: true, start_time: 4242 }));
    }

    #[test]
    fn a_filter_comes_back_as_it_was_saved() {
        let root = tempfile::tempdir().unwrap();
        let (container, _lock) = Container::create(root.path(), record("c1")).unwrap();
        assert!(container.load_filter().unwrap().is_none());
        let instruction = libc::sock_filter { code: 6, jt: 1, jf: 2, k: 0x7fff_0000 };
        let program = Program { instructions: vec![instruction], ..Default::default() };
        container.save_filter(&program).unwrap();
        let loaded = container.load_filter().unwrap().unwrap().instructions[0];
        assert_eq!((loaded.code, loaded.jt, loaded.jf, loaded.k), (6, 1, 2, 0x7fff_0000));
    }
}
