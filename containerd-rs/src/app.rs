//! Config to App: the one place where the nouns are wired together.

use std::ops::Deref;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::content::Content;
use crate::diff::Diff;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::lease::Leases;
use crate::snapshot::Snapshots;
use crate::store::Store;
use crate::store::containers::Containers;
use crate::store::gc::Collector;
use crate::store::images::Images;
use crate::store::namespaces::Namespaces;

/// Everything; cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Parts>);

pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) uuid: String,
    pub(crate) events: Events,
    pub(crate) namespaces: Namespaces,
    pub(crate) images: Images,
    pub(crate) containers: Containers,
    pub(crate) leases: Leases,
    pub(crate) content: Content,
    pub(crate) snapshots: Snapshots,
    pub(crate) diff: Diff,
    pub(crate) collector: Collector,
    /// Cancelled when the daemon is to end.
    pub(crate) shutdown: CancellationToken,
    /// Cancelled when metadata cannot be written any more.
    pub(crate) store_failed: CancellationToken,
}

impl App {
    /// Opens everything below root and state.
    pub(crate) fn open(config: Config) -> Result<Self> {
        for (path, mode) in [(&config.root, 0o711), (&config.state, 0o711)] {
            make_directory(path, mode)?;
        }
        let metadata = config.root.join("io.containerd.metadata.v1.redb");
        make_directory(&metadata, 0o700)?;
        let store = Store::open(&metadata.join("meta.redb"))?;
        let store_failed = store.failed();
        let events = Events::default();
        let content = Content::open(&config.root, store.clone(), events.clone())?;
        let snapshots = Snapshots::open(&config.root, store.clone(), events.clone())?;
        let shutdown = CancellationToken::new();
        let collector =
            Collector::new(store.clone(), content.clone(), snapshots.clone(), events.clone());
        Ok(Self(Arc::new(Parts {
            uuid: uuid(&config)?,
            namespaces: Namespaces::new(store.clone(), events.clone()),
            images: Images::new(store.clone(), events.clone()),
            containers: Containers::new(store.clone(), events.clone()),
            leases: Leases::new(store),
            diff: Diff::new(content.clone(), config.state.join("diff-mounts")),
            content,
            snapshots,
            collector,
            events,
            config,
            shutdown,
            store_failed,
        })))
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Made once for this root; clients recognise the daemon by it.
fn uuid(config: &Config) -> Result<String> {
    let directory = config.root.join("io.containerd.grpc.v1.introspection");
    make_directory(&directory, 0o700)?;
    let path = directory.join("uuid");
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() == 36 => return Ok(text.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(Error::io("read", path)(error)),
    }
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| {
        Error::io("get random bytes for", &path)(std::io::Error::other(error.to_string()))
    })?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let uuid = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
    let temporary = directory.join("uuid.new");
    std::fs::write(&temporary, &uuid).map_err(Error::io("write", &temporary))?;
    std::fs::rename(&temporary, &path).map_err(Error::io("rename", &temporary))?;
    Ok(uuid)
}

fn make_directory(path: &std::path::Path, mode: u32) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .map_err(Error::io("create", path))
}
