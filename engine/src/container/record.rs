//! What is kept on disk of a container: one small JSON record, replaced by rename.
//!
//! ```text
//! container.json           as of the last change that was promised, synced
//! container.unsynced.json  as of a later one that need not outlive the machine
//! ```
//! After a power cut the second may be empty, torn or gone. The first is never replaced by what is not
//! synced: not every file system would keep either of the two.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use docker_api::container::{Config, Health, HostConfig};
use docker_api::mount::MountPoint;
use docker_api::network::{EndpointSettings, PortMap};
use serde::{Deserialize, Serialize};

use super::lifecycle::Phase;
use crate::network::Attached;
use crate::store::{self, Durability, StoreError};

/// Bumped when a field changes its meaning.
pub(crate) const VERSION: u32 = 1;

/// A container, complete.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    pub(crate) version: u32,
    /// Counts the writings, so that the newer of two files is known.
    pub(crate) serial: u64,
    pub(crate) id: String,
    /// Without the leading slash.
    pub(crate) name: String,
    pub(crate) created: String,
    pub(crate) path: String,
    pub(crate) args: Vec<String>,
    pub(crate) image_id: String,
    pub(crate) chain_id: String,
    /// Descriptor of the image's manifest.
    pub(crate) manifest: serde_json::Value,
    pub(crate) config: Config,
    pub(crate) host_config: HostConfig,
    pub(crate) mounts: Vec<Mounted>,
    /// What was asked for, by network name.
    pub(crate) networks: BTreeMap<String, EndpointSettings>,
    /// What it has, while it runs.
    pub(crate) attached: Option<AttachedRecord>,
    /// The AppArmor profile that its last start gave it; before the first one what the request names.
    pub(crate) apparmor: String,
    pub(crate) state: State,
    pub(crate) restart_count: i64,
    /// Named and anonymous volumes were filled from the image.
    pub(crate) populated: bool,
}

/// The moving part.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    pub(crate) phase: Phase,
    pub(crate) pid: u32,
    pub(crate) exit_code: i64,
    pub(crate) error: String,
    pub(crate) oom_killed: bool,
    pub(crate) started_at: String,
    pub(crate) finished_at: String,
    /// Stopped by request: restart policies hold still.
    pub(crate) stopped_by_user: bool,
    /// The task below still has to be deleted and the mounts released.
    pub(crate) unclean: bool,
    /// When a start began that has not been recorded as done; empty otherwise.
    pub(crate) starting: String,
    /// Since the first start, where there is a check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) health: Option<Health>,
    /// A removal under way takes the anonymous volumes, too.
    pub(crate) remove_volumes: bool,
}

/// One mount of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Mounted {
    /// `bind`, `volume` or `tmpfs`.
    pub(crate) kind: String,
    pub(crate) name: String,
    /// Host path of a bind; of a volume as it was at create.
    pub(crate) source: String,
    pub(crate) destination: String,
    pub(crate) driver: String,
    pub(crate) mode: String,
    pub(crate) rw: bool,
    pub(crate) propagation: String,
    pub(crate) no_copy: bool,
    pub(crate) anonymous: bool,
    pub(crate) subpath: String,
    pub(crate) non_recursive: bool,
    /// `-v` makes a missing source, `--mount` does not.
    pub(crate) create_source: bool,
    /// A read-only bind: what is mounted below its source may stay writable.
    pub(crate) read_only_top: bool,
    /// A read-only bind: refuse to start unless everything below is read-only too.
    pub(crate) read_only_force: bool,
    /// Labels and options of a volume that does not exist yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) labels: Option<docker_api::StringMap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) driver_opts: Option<docker_api::StringMap>,
    /// Options of a tmpfs.
    pub(crate) tmpfs: String,
}

impl Mounted {
    /// As inspect shows it.
    pub(crate) fn to_wire(&self) -> MountPoint {
        MountPoint {
            kind: self.kind.clone(),
            name: self.name.clone(),
            source: self.source.clone(),
            destination: self.destination.clone(),
            driver: self.driver.clone(),
            mode: self.mode.clone(),
            rw: self.rw,
            propagation: self.propagation.clone(),
        }
    }
}

/// [`Attached`] on disk.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct AttachedRecord {
    pub(crate) sandbox_id: String,
    pub(crate) endpoints: BTreeMap<String, EndpointSettings>,
    pub(crate) ports: PortMap,
    pub(crate) hosts: Vec<(String, Vec<String>)>,
    pub(crate) nameserver: Option<IpAddr>,
}

impl From<Attached> for AttachedRecord {
    fn from(attached: Attached) -> Self {
        Self {
            sandbox_id: attached.sandbox_id,
            endpoints: attached.endpoints,
            ports: attached.ports,
            hosts: attached.hosts.into_iter().map(|(ip, names)| (ip.to_string(), names)).collect(),
            nameserver: attached.nameserver,
        }
    }
}

impl AttachedRecord {
    pub(crate) fn to_attached(&self) -> Attached {
        Attached {
            sandbox_id: self.sandbox_id.clone(),
            endpoints: self.endpoints.clone(),
            ports: self.ports.clone(),
            hosts: self
                .hosts
                .iter()
                .filter_map(|(ip, names)| Some((ip.parse().ok()?, names.clone())))
                .collect(),
            nameserver: self.nameserver,
        }
    }
}

impl Record {
    /// The newest that can be read; `None` when none was promised.
    pub(crate) fn read(paths: &Paths) -> Result<Option<Self>, StoreError> {
        let synced = Self::read_one(paths.synced(), paths)?;
        let unsynced = Self::read_one(paths.unsynced(), paths).unwrap_or_else(|error| {
            tracing::info!("{error}; as after a power cut");
            None
        });
        Ok(match (synced, unsynced) {
            (Some(synced), Some(unsynced)) if unsynced.serial <= synced.serial => Some(synced),
            (synced, unsynced) => unsynced.or(synced),
        })
    }

    /// Paths are made of the id: what is not of this container must not name another's.
    fn read_one(path: PathBuf, paths: &Paths) -> Result<Option<Self>, StoreError> {
        match store::read::<Self>(&path)? {
            Some(record) if paths.dir.file_name() != Some(record.id.as_ref()) => {
                Err(StoreError::Foreign { path, id: record.id })
            }
            Some(Self { version, .. }) if version > VERSION => {
                Err(StoreError::Newer { path, version })
            }
            record => Ok(record),
        }
    }

    pub(crate) fn write(&self, paths: &Paths, durability: Durability) -> Result<(), StoreError> {
        let path = match durability {
            Durability::Synced => paths.synced(),
            Durability::Written => paths.unsynced(),
        };
        store::write(&path, self, durability)
    }

    /// What is half removed is not a container any more; the older one must not be what is left.
    pub(crate) fn remove(paths: &Paths) {
        drop(std::fs::remove_file(paths.synced()));
        drop(std::fs::remove_file(paths.unsynced()));
    }
}

/// Where a container keeps what.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    /// Durable: record, log, the three files.
    pub(crate) dir: PathBuf,
    /// Fifos, gone with a reboot.
    pub(crate) run: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) netns: PathBuf,
    pub(crate) shm: PathBuf,
    /// The live output.
    pub(crate) attach: PathBuf,
}

impl Paths {
    pub(crate) fn new(data_root: &Path, exec_root: &Path, id: &str) -> Self {
        let short = id.get(..20).unwrap_or(id);
        Self {
            dir: data_root.join("containers").join(id),
            run: exec_root.join("c").join(id),
            rootfs: exec_root.join("rootfs").join(id),
            netns: exec_root.join("netns").join(id.get(..12).unwrap_or(id)),
            shm: exec_root.join("shm").join(id),
            attach: exec_root.join("a").join(format!("{short}.s")),
        }
    }

    fn synced(&self) -> PathBuf {
        self.dir.join("container.json")
    }

    fn unsynced(&self) -> PathBuf {
        self.dir.join("container.unsynced.json")
    }

    /// Names what a create under way makes besides the directory.
    pub(crate) fn draft(&self) -> PathBuf {
        self.dir.join("draft.json")
    }

    pub(crate) fn log(&self, id: &str) -> PathBuf {
        self.dir.join(format!("{id}-json.log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(name: &str, serial: u64) -> Record {
        Record { id: "id".to_owned(), name: name.to_owned(), serial, ..Record::default() }
    }

    #[test]
    fn the_newer_record_counts_and_a_torn_one_does_not() {
        let top = tempfile::tempdir().unwrap();
        let paths = Paths::new(top.path(), top.path(), "id");
        std::fs::create_dir_all(&paths.dir).unwrap();
        let read = || Record::read(&paths).unwrap().map(|record| record.name);
        assert_eq!(read(), None);
        std::fs::write(paths.unsynced(), "").unwrap();
        assert_eq!(read(), None);
        named("synced", 1).write(&paths, Durability::Synced).unwrap();
        assert_eq!(read().unwrap(), "synced");
        named("written", 2).write(&paths, Durability::Written).unwrap();
        assert_eq!(read().unwrap(), "written");
        named("again", 3).write(&paths, Durability::Synced).unwrap();
        assert_eq!(read().unwrap(), "again");
        std::fs::write(paths.unsynced(), "{\"name\":").unwrap();
        assert_eq!(read().unwrap(), "again");
        std::fs::write(paths.synced(), "").unwrap();
        assert!(Record::read(&paths).is_err());
        Record::remove(&paths);
        assert_eq!(read(), None);
    }

    const WORDS: &[&str] =
        &["null", "[]", "{}", "\"\"", "-1", ",", "\"id\":\"../x\",", "\"version\":9,", "\0"];

    #[test]
    fn a_record_of_another_container_or_a_later_engine_is_not_taken() {
        let top = tempfile::tempdir().unwrap();
        let paths = Paths::new(top.path(), top.path(), "id");
        std::fs::create_dir_all(&paths.dir).unwrap();
        for text in ["{}", r#"{"id":""}"#, r#"{"id":"../../x"}"#, r#"{"id":"id","version":2}"#] {
            std::fs::write(paths.synced(), text).unwrap();
            let error = Record::read(&paths).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("record {}: ", paths.synced().display())),
                "{error}"
            );
        }
    }

    proptest! {
        // Each writes files.
        #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 16, ..ProptestConfig::default() })]

        #[test]
        fn a_damaged_record_is_told_or_is_of_its_container(
            edits in proptest::collection::vec((any::<usize>(), 0_usize..9, 0..WORDS.len()), 1..4),
            torn in proptest::option::of(0_usize..40),
        ) {
            let top = tempfile::tempdir().unwrap();
            let paths = Paths::new(top.path(), top.path(), "id");
            std::fs::create_dir_all(&paths.dir).unwrap();
            let mut text = serde_json::to_vec(&named("n", 1)).unwrap();
            for (at, cut, word) in edits {
                let at = at % (text.len() + 1);
                text.splice(at..(at + cut).min(text.len()), WORDS[word].bytes());
            }
            std::fs::write(paths.synced(), &text).unwrap();
            let read = || Record::read(&paths);
            if let Ok(record) = read() {
                prop_assert_eq!(record.unwrap().id, "id");
            }
            // The younger file need not be whole.
            if let Some(torn) = torn {
                std::fs::write(paths.synced(), serde_json::to_vec(&named("n", 1)).unwrap()).unwrap();
                std::fs::write(paths.unsynced(), &text[..torn.min(text.len())]).unwrap();
                prop_assert_eq!(read().unwrap().unwrap().name, "n");
            }
        }
    }
}
