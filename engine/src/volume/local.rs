//! Volumes of the `local` driver: named and anonymous directories, optionally something mounted on them.
//!
//! ```text
//! <data-root>/volumes/<name>/_data        what containers see
//! <data-root>/volumes/<name>/_filling     what is copied up from an image, until it is whole
//! <data-root>/volumes/<name>/volume.json  name, labels, options, birth; synced before the API answers
//! ```
//!
//! Who uses a volume is not written: the containers' own records say it, and [`Local::acquire`] is called
//! for each of them when the engine starts. All calls block on disks: `spawn_blocking`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use docker_api::filters::{FilterError, Filters};
use docker_api::{StringMap, volume as api};
use proto::errdefs::Kind;
use serde::{Deserialize, Serialize};

use super::mount::MountOptions;
use super::{copy_up, mount};
use crate::sys::inside::Inside;

/// What dockerd puts on volumes nobody named.
pub(crate) const ANONYMOUS_LABEL: &str = "com.docker.volume.anonymous";

/// The newest version of `volume.json` this engine writes.
const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    // Compat: clients match these sentences.
    #[error("get {0}: no such volume")]
    NotFound(String),
    #[error("remove {name}: volume is in use - [{}]", .users.join(", "))]
    InUse { name: String, users: Vec<String> },
    #[error(
        "create {name}: error looking up volume plugin {driver}: plugin \"{driver}\" not found"
    )]
    NoDriver { name: String, driver: String },
    #[error(
        "create {0}: \"{0}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )]
    Name(String),
    #[error(
        "create {0}: volume name is too short, names should be at least two alphanumeric characters"
    )]
    ShortName(String),
    #[error("create {name}: {source}")]
    Options { name: String, source: mount::OptionError },
    #[error("{step} {path}: {source}")]
    Io { step: &'static str, path: PathBuf, source: std::io::Error },
    #[error("failed to mount local volume: mount {device}:{target}{flags}: {source}")]
    Mount { device: String, target: PathBuf, flags: String, source: std::io::Error },
    #[error("parse {path}: {source}")]
    Parse { path: PathBuf, source: serde_json::Error },
    #[error("{path} has version {version}, newer than this engine knows")]
    Newer { path: PathBuf, version: u32 },
    #[error("copy {from} into volume: {source}")]
    CopyUp { from: String, source: copy_up::CopyError },
    #[error("the engine is ending")]
    Interrupted,
    #[error(transparent)]
    Filter(#[from] FilterError),
}

impl VolumeError {
    pub(crate) fn class(&self) -> Kind {
        match self {
            Self::NotFound(_) | Self::NoDriver { .. } => Kind::NotFound,
            Self::InUse { .. } => Kind::AlreadyExists,
            Self::Name(_) | Self::ShortName(_) | Self::Options { .. } | Self::Filter(_) => {
                Kind::InvalidArgument
            }
            _ => Kind::Internal,
        }
    }
}

fn io(step: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { step, path, source }
}

/// `volume.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    version: u32,
    created: String,
    labels: Option<StringMap>,
    options: Option<StringMap>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    /// Containers that name the volume, running or not.
    users: BTreeSet<String>,
    /// Containers that have it mounted; the first mounts the device, the last unmounts it.
    mounted: BTreeSet<String>,
}

/// All volumes of an engine.
#[derive(Debug)]
pub(crate) struct Local {
    root: PathBuf,
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Local {
    /// Reads what is there. A volume whose record cannot be read is told, and left alone.
    pub(crate) fn open(data_root: &Path) -> Result<Self, VolumeError> {
        let root = data_root.join("volumes");
        std::fs::create_dir_all(&root).map_err(io("create", &root))?;
        let mut entries = BTreeMap::new();
        for found in std::fs::read_dir(&root).map_err(io("read", &root))? {
            let path = found.map_err(io("read", &root))?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
            match read(&path.join("volume.json")) {
                Ok(Some(record)) => {
                    drop(std::fs::remove_dir_all(path.join(FILLING)));
                    let (users, mounted) = (BTreeSet::new(), BTreeSet::new());
                    entries.insert(name.to_owned(), Entry { record, users, mounted });
                }
                // The engine died between the directory and its record: nobody was told of it.
                Ok(None) => discard_draft(&path),
                Err(error) => tracing::error!(%error, volume = name, "a volume is left alone"),
            }
        }
        Ok(Self { root, entries: Mutex::new(entries) })
    }

    /// `POST /volumes/create`; the same name again answers with what is there (and
    /// false). Without a name it is anonymous.
    pub(crate) fn create(
        &self,
        request: &api::VolumeCreateRequest,
    ) -> Result<(api::Volume, bool), VolumeError> {
        if !request.driver.is_empty() && request.driver != "local" {
            return Err(VolumeError::NoDriver {
                name: request.name.clone(),
                driver: request.driver.clone(),
            });
        }
        let mut labels = request.labels.clone();
        let name = if request.name.is_empty() {
            labels.get_or_insert_default().insert(ANONYMOUS_LABEL.to_owned(), String::new());
            random_name()
        } else {
            check_name(&request.name)?;
            request.name.clone()
        };
        let mut entries = self.lock();
        if let Some(entry) = entries.get(&name) {
            return Ok((self.view(&name, entry), false));
        }
        let options = request.driver_opts.clone().filter(|options| !options.is_empty());
        if let Some(options) = &options {
            MountOptions::parse(options)
                .map_err(|source| VolumeError::Options { name: name.clone(), source })?;
        }
        let record = Record { version: VERSION, created: now(), labels, options };
        let directory = self.root.join(&name);
        let data = directory.join("_data");
        std::fs::create_dir_all(&data).map_err(io("create", &data))?;
        write(&directory.join("volume.json"), &record)?;
        let entry = Entry { record, users: BTreeSet::new(), mounted: BTreeSet::new() };
        let view = self.view(&name, &entry);
        entries.insert(name, entry);
        Ok((view, true))
    }

    pub(crate) fn get(&self, name: &str) -> Result<api::Volume, VolumeError> {
        let entries = self.lock();
        let entry = entries.get(name).ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        Ok(self.view(name, entry))
    }

    pub(crate) fn list(&self, filters: &Filters) -> Result<Vec<api::Volume>, VolumeError> {
        filters.only(&["dangling", "driver", "label", "name"])?;
        let dangling = filters.flag("dangling")?;
        let entries = self.lock();
        Ok(entries
            .iter()
            .filter(|(name, entry)| {
                filters.any("name", |part| name.contains(part))
                    && filters.exact("driver", "local")
                    && filters.labels("label", entry.record.labels.as_ref().unwrap_or(&NONE))
                    && dangling.is_none_or(|wanted| wanted == entry.users.is_empty())
            })
            .map(|(name, entry)| self.view(name, entry))
            .collect())
    }

    /// `DELETE /volumes/{name}`; `force` makes a missing one no error. Whether one was removed.
    pub(crate) fn remove(&self, name: &str, force: bool) -> Result<bool, VolumeError> {
        let mut entries = self.lock();
        let Some(entry) = entries.get(name) else {
            return if force { Ok(false) } else { Err(VolumeError::NotFound(name.to_owned())) };
        };
        if !entry.users.is_empty() {
            let users = entry.users.iter().cloned().collect();
            return Err(VolumeError::InUse { name: name.to_owned(), users });
        }
        self.delete(name)?;
        entries.remove(name);
        self.sync()?;
        Ok(true)
    }

    /// `POST /volumes/prune`. Only anonymous ones unless `all`.
    pub(crate) fn prune(
        &self,
        filters: &Filters,
        all: bool,
    ) -> Result<api::VolumesPruned, VolumeError> {
        filters.only(&["all", "label", "label!"])?;
        let all = filters.flag("all")?.unwrap_or(all);
        let mut entries = self.lock();
        let unused: Vec<String> = entries
            .iter()
            .filter(|(_, entry)| {
                let labels = entry.record.labels.as_ref().unwrap_or(&NONE);
                // Compat: one with options stays, whatever is asked for.
                entry.users.is_empty()
                    && entry.record.options.is_none()
                    && (all || labels.contains_key(ANONYMOUS_LABEL))
                    && filters.labels("label", labels)
                    && (!filters.contains("label!") || !filters.labels("label!", labels))
            })
            .map(|(name, _)| name.clone())
            .collect();
        let mut pruned =
            api::VolumesPruned { volumes_deleted: Some(Vec::new()), ..Default::default() };
        for name in unused {
            let size = Inside::open(&self.data(&name)).map_or(0, |data| data.size());
            match self.delete(&name) {
                Ok(()) => {
                    entries.remove(&name);
                    pruned.space_reclaimed = pruned.space_reclaimed.saturating_add(size);
                    pruned.volumes_deleted.get_or_insert_default().push(name);
                }
                Err(error) => tracing::warn!(%error, volume = name, "could not prune a volume"),
            }
        }
        if pruned.volumes_deleted.as_ref().is_some_and(Vec::is_empty) {
            pruned.volumes_deleted = None;
        } else {
            self.sync()?;
        }
        Ok(pruned)
    }

    /// A container names the volume from now on: it cannot be removed.
    pub(crate) fn acquire(&self, name: &str, container: &str) -> Result<(), VolumeError> {
        let mut entries = self.lock();
        let entry = entries.get_mut(name).ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        entry.users.insert(container.to_owned());
        Ok(())
    }

    /// The container is gone.
    pub(crate) fn release(&self, name: &str, container: &str) {
        if let Some(entry) = self.lock().get_mut(name) {
            entry.users.remove(container);
        }
    }

    /// The directory to bind, with its device mounted on it where the options say so.
    pub(crate) fn mount(&self, name: &str, container: &str) -> Result<PathBuf, VolumeError> {
        let mut entries = self.lock();
        let entry = entries.get_mut(name).ok_or_else(|| VolumeError::NotFound(name.to_owned()))?;
        let data = self.data(name);
        if let Some(options) = &entry.record.options
            && !mount::is_mounted(&data)
        {
            let options = MountOptions::parse(options)
                .map_err(|source| VolumeError::Options { name: name.to_owned(), source })?;
            options.mount(&data)?;
        }
        entry.mounted.insert(container.to_owned());
        Ok(data)
    }

    /// The container's end; the last one takes the device away. Answers whether the container had it mounted.
    pub(crate) fn unmount(&self, name: &str, container: &str) -> Result<bool, VolumeError> {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(name) else { return Ok(false) };
        let held = entry.mounted.remove(container);
        let data = self.data(name);
        if entry.record.options.is_some() && entry.mounted.is_empty() && mount::is_mounted(&data) {
            mount::unmount(&data).map_err(io("unmount", &data))?;
        }
        Ok(held)
    }

    /// Fills an empty volume with what the image has at `path`, owner and mode of the directory included.
    pub(crate) fn copy_up(&self, name: &str, rootfs: &Path, path: &str) -> Result<(), VolumeError> {
        let failed = |source| VolumeError::CopyUp { from: path.to_owned(), source };
        // Put in its place when it is whole, so that a fill that is cut short is none.
        let (data, beside) = (self.data(name), self.root.join(name).join(FILLING));
        if is_alone(&self.lock(), name)
            && copy_up::draft(rootfs, path, &data, &beside).map_err(failed)?
        {
            // Whoever has mounted it meanwhile would keep the directory that is replaced.
            let entries = self.lock();
            if is_alone(&entries, name) && std::fs::rename(&beside, &data).is_ok() {
                return Ok(());
            }
            drop(entries);
            std::fs::remove_dir_all(&beside).map_err(io("remove", &beside))?;
        }
        copy_up::copy_up(rootfs, path, &data).map_err(failed)
    }

    /// Where containers' data lives.
    pub(crate) fn data(&self, name: &str) -> PathBuf {
        self.root.join(name).join("_data")
    }

    fn view(&self, name: &str, entry: &Entry) -> api::Volume {
        api::Volume {
            created_at: entry.record.created.clone(),
            driver: "local".to_owned(),
            labels: entry.record.labels.clone(),
            mountpoint: self.data(name).to_string_lossy().into_owned(),
            name: name.to_owned(),
            options: entry.record.options.clone(),
            scope: "local".to_owned(),
            status: None,
            usage_data: None,
        }
    }

    /// The record goes first: a crash leaves a directory without one, which the next start clears.
    fn delete(&self, name: &str) -> Result<(), VolumeError> {
        let directory = self.root.join(name);
        let data = directory.join("_data");
        if mount::is_mounted(&data) {
            mount::unmount(&data).map_err(io("unmount", &data))?;
        }
        let record = directory.join("volume.json");
        std::fs::remove_file(&record).map_err(io("remove", &record))?;
        std::fs::remove_dir_all(&directory).map_err(io("remove", &directory))
    }

    /// What was removed does not come back.
    fn sync(&self) -> Result<(), VolumeError> {
        let root = &self.root;
        std::fs::File::open(root).and_then(|root| root.sync_all()).map_err(io("sync", root))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one container at most uses a directory of ours.
fn is_alone(entries: &BTreeMap<String, Entry>, name: &str) -> bool {
    entries
        .get(name)
        .is_some_and(|entry| entry.record.options.is_none() && entry.mounted.len() <= 1)
}

const FILLING: &str = "_filling";

static NONE: StringMap = StringMap::new();

/// A directory of ours without a record: only `_data` in it, and that empty or half deleted.
fn discard_draft(directory: &Path) {
    if !directory.join("_data").is_dir() || mount::is_mounted(&directory.join("_data")) {
        return;
    }
    if let Err(error) = std::fs::remove_dir_all(directory) {
        tracing::warn!(%error, path = %directory.display(), "could not clear an unfinished volume");
    }
}

/// dockerd's rule: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub(crate) fn check_name(name: &str) -> Result<(), VolumeError> {
    if name.len() == 1 {
        return Err(VolumeError::ShortName(name.to_owned()));
    }
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
    if first && rest && name.len() <= 255 {
        Ok(())
    } else {
        Err(VolumeError::Name(name.to_owned()))
    }
}

fn read(path: &Path) -> Result<Option<Record>, VolumeError> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io("read", path)(source)),
    };
    let parse = |source| VolumeError::Parse { path: path.to_owned(), source };
    let Versioned { version } = serde_json::from_slice(&bytes).map_err(parse)?;
    if version > VERSION {
        return Err(VolumeError::Newer { path: path.to_owned(), version });
    }
    serde_json::from_slice(&bytes).map(Some).map_err(parse)
}

/// By rename, synced: the answer to `create` promises it.
fn write(path: &Path, record: &Record) -> Result<(), VolumeError> {
    let bytes = serde_json::to_vec(record)
        .map_err(|source| VolumeError::Parse { path: path.to_owned(), source })?;
    let draft = path.with_extension("new");
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&draft)
        .and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        })
        .and_then(|()| std::fs::rename(&draft, path))
        .and_then(|()| match path.parent() {
            Some(parent) => std::fs::File::open(parent)?.sync_all(),
            None => Ok(()),
        });
    written.map_err(io("write", path))
}

/// 64 hex digits.
fn random_name() -> String {
    use std::fmt::Write as _;
    let mut bytes = [0u8; 32];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!(%error, "getrandom");
    }
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing into a String cannot fail.
        let _written: std::fmt::Result = write!(text, "{byte:02x}");
        text
    })
}

/// Whole seconds, as dockerd reads it from the directory.
fn now() -> String {
    docker_api::time::rfc3339_nano(jiff::Timestamp::now().as_second(), 0)
}
