//! Shares of cache and memory bandwidth (`linux.intelRdt`), through the resctrl filesystem.
//!
//! A group is a directory of it: its `tasks` take processes, its `schemata` their share. See the
//! kernel's `filesystems/resctrl.rst`. Sentences are runc's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::oci::IntelRdt;
use crate::sys::{errno_of, errno_text, file, mountinfo};

mod stats;

const USUAL: &str = "/sys/fs/resctrl";
const MAGIC: i64 = 0x0765_5821;

#[derive(Debug, thiserror::Error)]
pub(crate) enum ResctrlError {
    #[error("intelRdt is specified in config, but Intel RDT is not enabled")]
    Missing,
    #[error("invalid intelRdt.ClosID {0:?}")]
    Name(String),
    #[error("intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled")]
    NoCache,
    #[error("intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled")]
    NoBandwidth,
    #[error(
        "clos dir not accessible (must be pre-created when schemata, l3CacheSchema and \
         memBwSchema are empty): stat {}: {}",
        path.display(), errno_text(errno_of(cause))
    )]
    NotThere { path: PathBuf, cause: io::Error },
    #[error("{call} {}: {}{status}", path.display(), errno_text(errno_of(cause)))]
    Io { call: &'static str, path: PathBuf, cause: io::Error, status: String },
}

/// The filesystem, where the host has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Resctrl(PathBuf);

impl Resctrl {
    pub(crate) fn find() -> Option<Self> {
        // The directory is the kernel's word that the hardware can.
        let usual = rustix::fs::statfs(USUAL).ok()?;
        if usual.f_type == MAGIC {
            return Some(Self(USUAL.into()));
        }
        Self::mounted(&file::read(Path::new("/proc/self/mountinfo")).ok()?)
    }

    /// The first one in a table of mounts.
    fn mounted(table: &[u8]) -> Option<Self> {
        mountinfo::parse(table).find(|one| one.kind == "resctrl").map(|one| Self(one.point))
    }

    pub(crate) fn has_cache(&self) -> bool {
        self.0.join("info/L3").exists()
    }

    pub(crate) fn has_bandwidth(&self) -> bool {
        self.0.join("info/MB").exists()
    }

    pub(crate) fn check(found: Option<&Self>, wanted: &IntelRdt) -> Result<(), ResctrlError> {
        let resctrl = found.ok_or(ResctrlError::Missing)?;
        let name = wanted.clos_id.as_str();
        if matches!(name, "." | "..") || name.len() > 1 && name.contains('/') {
            return Err(ResctrlError::Name(name.to_owned()));
        }
        if !wanted.l3_cache_schema.is_empty() && !resctrl.has_cache() {
            return Err(ResctrlError::NoCache);
        }
        if !wanted.mem_bw_schema.is_empty() && !resctrl.has_bandwidth() {
            return Err(ResctrlError::NoBandwidth);
        }
        Ok(())
    }

    /// Puts `pid` into the group that `wanted` names, which is made where it may be.
    pub(crate) fn enter(
        &self,
        id: &str,
        wanted: &IntelRdt,
        pid: i32,
    ) -> Result<Group, ResctrlError> {
        let name = if wanted.clos_id.is_empty() { id } else { &wanted.clos_id };
        let path = self.0.join(name.trim_matches('/'));
        if !wanted.clos_id.is_empty()
            && wanted.lines().is_empty()
            && let Err(cause) = fs::metadata(&path)
        {
            return Err(ResctrlError::NotThere { path, cause });
        }
        let monitor = wanted.enable_monitoring.then(|| path.join("mon_groups").join(id));
        // One that the caller named is the caller's.
        let own = self.make(&path)? && wanted.clos_id.is_empty();
        let group = Group { root: self.0.clone(), path, monitor, own, wanted: wanted.clone() };
        let entered = group.fill(pid);
        if let Err(error) = entered {
            // The failure that is told is the first one.
            drop(group.remove());
            return Err(error);
        }
        Ok(group)
    }

    /// Whether it was not there before.
    fn make(&self, path: &Path) -> Result<bool, ResctrlError> {
        match fs::create_dir(path) {
            Ok(()) => Ok(true),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(cause) => Err(self.failed("mkdir", path, cause)),
        }
    }

    /// With what the kernel says of its last refusal.
    fn failed(&self, call: &'static str, path: &Path, cause: io::Error) -> ResctrlError {
        let status = fs::read_to_string(self.0.join("info/last_cmd_status"));
        let status = status.map(|text| format!(", last_cmd_status: {}", text.trim_end()));
        ResctrlError::Io { call, path: path.to_owned(), cause, status: status.unwrap_or_default() }
    }
}

/// What a container's record knows of its group.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Group {
    root: PathBuf,
    path: PathBuf,
    /// Where the container is counted by itself.
    monitor: Option<PathBuf>,
    /// Made for this container alone.
    own: bool,
    pub(crate) wanted: IntelRdt,
}

impl Group {
    fn fill(&self, pid: i32) -> Result<(), ResctrlError> {
        self.add(pid)?;
        let Some(monitor) = &self.monitor else { return Ok(()) };
        Resctrl(self.root.clone()).make(monitor)?;
        self.write(&monitor.join("tasks"), &pid.to_string())
    }

    /// A further process. A group that somebody has removed takes none, and that is no error.
    pub(crate) fn add(&self, pid: i32) -> Result<(), ResctrlError> {
        if !self.path.exists() {
            return Ok(());
        }
        self.write(&self.path.join("tasks"), &pid.to_string())
    }

    pub(crate) fn set(&self) -> Result<(), ResctrlError> {
        let lines = self.wanted.lines();
        if lines.is_empty() {
            return Ok(());
        }
        self.write(&self.path.join("schemata"), &lines)
    }

    pub(crate) fn remove(&self) -> Result<(), ResctrlError> {
        // With a group goes what counted in it.
        let path = if self.own { Some(&self.path) } else { self.monitor.as_ref() };
        let Some(path) = path else { return Ok(()) };
        match fs::remove_dir(path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(Resctrl(self.root.clone()).failed("rmdir", path, cause))
            }
            _ => Ok(()),
        }
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), ResctrlError> {
        file::write(path, [text])
            .map_err(|error| Resctrl(self.root.clone()).failed("write", path, error.cause))
    }
}

impl IntelRdt {
    /// As `schemata` takes them.
    fn lines(&self) -> String {
        [&self.l3_cache_schema, &self.mem_bw_schema]
            .into_iter()
            .chain(&self.schemata)
            .filter(|line| !line.is_empty())
            .map(|line| format!("{line}\n"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as the kernel makes them, of a group that is there already.
    fn tree() -> (tempfile::TempDir, Resctrl) {
        let dir = tempfile::tempdir().unwrap();
        for group in ["info/L3", "group", "group/mon_groups/c1"] {
            fs::create_dir_all(dir.path().join(group)).unwrap();
        }
        for file in ["group/tasks", "group/schemata", "group/mon_groups/c1/tasks"] {
            fs::write(dir.path().join(file), "").unwrap();
        }
        fs::write(dir.path().join("info/last_cmd_status"), "no such thing\n").unwrap();
        let resctrl = Resctrl(dir.path().to_owned());
        (dir, resctrl)
    }

    fn wanted(name: &str) -> IntelRdt {
        IntelRdt { clos_id: name.into(), ..Default::default() }
    }

    #[test]
    fn a_group_takes_processes_and_their_share() {
        let (dir, resctrl) = tree();
        let config = IntelRdt {
            l3_cache_schema: "L3:0=f".into(),
            schemata: vec!["MB:0=20".into(), String::new()],
            enable_monitoring: true,
            ..wanted("group")
        };
        let group = resctrl.enter("c1", &config, 7).unwrap();
        group.set().unwrap();
        let text = |name: &str| fs::read_to_string(dir.path().join("group").join(name)).unwrap();
        assert_eq!((text("tasks"), text("schemata")), ("7".into(), "L3:0=f\nMB:0=20\n".into()));
        assert_eq!(text("mon_groups/c1/tasks"), "7");
        group.add(8).unwrap();
        assert_eq!(text("tasks"), "8");
        fs::remove_file(dir.path().join("group/mon_groups/c1/tasks")).unwrap();
        group.remove().unwrap();
        // The group is the caller's, the place it was counted in is ours.
        assert!(dir.path().join("group").exists());
        assert!(!dir.path().join("group/mon_groups/c1").exists());
        group.remove().unwrap();
    }

    #[test]
    fn a_group_of_the_containers_own_goes_with_it_and_a_failure_leaves_none() {
        let (dir, resctrl) = tree();
        // Nothing fills a directory with files here, so no process can enter it.
        let error = resctrl.enter("c1", &wanted(""), 7).unwrap_err();
        let path = dir.path().join("c1");
        let words = format!(
            "write {}: no such file or directory, last_cmd_status: no such thing",
            path.join("tasks").display()
        );
        assert_eq!(error.to_string(), words);
        assert!(!path.exists());
    }

    #[test]
    fn a_named_group_without_shares_must_be_there() {
        let (_dir, resctrl) = tree();
        let error = resctrl.enter("c1", &wanted("other"), 7).unwrap_err();
        assert!(error.to_string().starts_with("clos dir not accessible"), "{error}");
        assert!(resctrl.enter("c1", &wanted("group"), 7).is_ok());
    }

    #[test]
    fn what_the_host_cannot_do_is_told() {
        let (_dir, resctrl) = tree();
        let text = |config: &IntelRdt| {
            Resctrl::check(Some(&resctrl), config).map_err(|error| error.to_string())
        };
        assert_eq!(text(&wanted("group")), Ok(()));
        assert_eq!(text(&wanted("/")), Ok(()));
        assert_eq!(text(&wanted("a/b")).unwrap_err(), "invalid intelRdt.ClosID \"a/b\"");
        assert!(text(&wanted("..")).is_err());
        let bandwidth = IntelRdt { mem_bw_schema: "MB:0=20".into(), ..wanted("") };
        assert!(text(&bandwidth).unwrap_err().contains("RDT/MBA is not enabled"));
        let cache = IntelRdt { l3_cache_schema: "L3:0=f".into(), ..wanted("") };
        assert_eq!(text(&cache), Ok(()));
    }

    #[test]
    fn it_is_found_where_it_is_mounted() {
        let table = b"21 1 0:19 / /a rw - tmpfs resctrl rw\n22 1 0:20 / /b rw - resctrl r rw\n";
        assert_eq!(Resctrl::mounted(table), Some(Resctrl("/b".into())));
        assert_eq!(Resctrl::mounted(b"21 1 0:19 / /a rw - tmpfs resctrl rw\n"), None);
    }
}
