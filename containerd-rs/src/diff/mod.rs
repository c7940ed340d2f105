//! Applies a layer blob to a snapshot's mounts, or to a directory of its own.
//!
//! Where the mounts name one writable directory (a bind, or an overlay's upper directory) the layer
//! is written straight into it, whiteouts in overlay's form; otherwise the mounts are mounted on a
//! private directory and whiteouts remove what they hide.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oci_image::layer::{self, Applied, Missing, Whiteouts};
use tokio_util::sync::CancellationToken;

use crate::content::{Content, check_digest};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::snapshot::Mount;
use crate::store::record::{Descriptor, Labels};
use crate::sys::mount::Mounted;

#[derive(Clone)]
pub(crate) struct Diff {
    content: Content,
    mount_points: PathBuf,
    counter: Arc<AtomicU64>,
}

/// Where a layer goes.
#[derive(Debug, PartialEq, Eq)]
enum Target {
    /// Into this directory; whiteouts remove.
    Directory(PathBuf),
    /// Into an upper directory; whiteouts are kept for the kernel. Parents nearest first.
    Upper(PathBuf, Vec<PathBuf>),
    /// Only through the mounts.
    Mounted,
}

impl Diff {
    pub(crate) fn new(content: Content, mount_points: PathBuf) -> Self {
        Self { content, mount_points, counter: Arc::new(AtomicU64::new(0)) }
    }

    /// Answers the descriptor of the uncompressed layer.
    pub(crate) async fn apply(
        &self,
        context: &Context,
        layer: &Descriptor,
        mounts: Vec<Mount>,
        sync: bool,
    ) -> Result<Descriptor> {
        check_digest(&layer.digest)?;
        check_media_type(&layer.media_type)?;
        let blob = self.content.reader(&context.namespace, &layer.digest)?;
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        let point = self.mount_points.join(format!("{}-{number}", std::process::id()));
        let digest = layer.digest.clone();
        let applied =
            tokio::task::spawn_blocking(move || apply(blob.file, &digest, &mounts, point, sync));
        applied.await.map_err(|_| Error::Closed)?
    }

    /// Writes the layer into a directory of its own, whatever will be below it. What it leaves to
    /// [`inherit`] is for the caller; `stop` ends it early.
    pub(crate) async fn unpack(
        &self,
        context: &Context,
        layer: &Descriptor,
        into: PathBuf,
        whiteouts: Whiteouts,
        stop: CancellationToken,
    ) -> Result<Applied> {
        check_digest(&layer.digest)?;
        check_media_type(&layer.media_type)?;
        let file = self.content.reader(&context.namespace, &layer.digest)?.file;
        let digest = layer.digest.clone();
        let blob = Stoppable { file, stop };
        let written = tokio::task::spawn_blocking(move || write(blob, &digest, &into, whiteouts));
        written.await.map_err(|_| Error::Closed)?
    }
}

/// Reads until nobody wants it any more.
struct Stoppable {
    file: File,
    stop: CancellationToken,
}

impl Read for Stoppable {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.stop.is_cancelled() {
            return Err(io::Error::other("given up"));
        }
        self.file.read(into)
    }
}

/// Gives what was missing in the layer at `root` the looks it has in those below, nearest first. Blocking.
pub(crate) fn inherit(root: &Path, missing: &Missing, below: &[PathBuf]) -> Result<()> {
    let below = below.iter().map(|path| open_directory(path)).collect::<Result<Vec<_>>>()?;
    layer::inherit(open_directory(root)?.as_fd(), missing, &below)
        .map_err(|source| Error::Layer { digest: root.display().to_string(), source })
}

fn apply(
    blob: File,
    digest: &str,
    mounts: &[Mount],
    point: PathBuf,
    sync: bool,
) -> Result<Descriptor> {
    let mut mounted = None;
    let (root, whiteouts, below) = match target(mounts) {
        Target::Directory(path) => (path, Whiteouts::Remove, Vec::new()),
        Target::Upper(path, lower) => (path, Whiteouts::Overlay, lower),
        Target::Mounted => {
            let held = Mounted::new(mounts, point.clone()).map_err(Error::io("mount on", point))?;
            let path = held.path().to_owned();
            mounted = Some(held);
            (path, Whiteouts::Remove, Vec::new())
        }
    };
    let applied = write(blob, digest, &root, whiteouts)?;
    inherit(&root, &applied.missing, &below)?;
    if sync {
        let directory = open_directory(&root)?;
        rustix::fs::syncfs(&directory).map_err(|error| Error::io("sync", &root)(error.into()))?;
    }
    drop(mounted);
    Ok(Descriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
        digest: applied.diff_id.as_str().to_owned(),
        size: i64::try_from(applied.size).unwrap_or(i64::MAX),
        annotations: Labels::new(),
    })
}

fn write(blob: impl Read, digest: &str, root: &Path, whiteouts: Whiteouts) -> Result<Applied> {
    let directory = open_directory(root)?;
    let reader = io::BufReader::with_capacity(256 << 10, blob);
    layer::apply(reader, directory.as_fd(), whiteouts)
        .map_err(|source| Error::Layer { digest: digest.to_owned(), source })
}

fn target(mounts: &[Mount]) -> Target {
    let [only] = mounts else { return Target::Mounted };
    if !only.target.is_empty() {
        return Target::Mounted;
    }
    let has = |name: &str| only.options.iter().any(|option| option == name);
    let value = |name: &str| only.options.iter().find_map(|option| option.strip_prefix(name));
    match only.kind.as_str() {
        "bind" if !has("ro") => Target::Directory(only.source.clone().into()),
        // With userxattr the whiteouts would have to take another form.
        "overlay" if !has("userxattr") => match (value("upperdir="), value("lowerdir=")) {
            (Some(upper), Some(lower)) => {
                Target::Upper(upper.into(), lower.split(':').map(PathBuf::from).collect())
            }
            _ => Target::Mounted,
        },
        _ => Target::Mounted,
    }
}

fn open_directory(path: &Path) -> Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io("open", path)(error.into()))
}

/// Layers are tars, plain or compressed; encrypted ones and the like need a processor.
fn check_media_type(media_type: &str) -> Result<()> {
    let known = media_type.is_empty()
        || [".tar", ".tar+gzip", ".tar+zstd", ".tar.gzip", ".tar.zstd"]
            .iter()
            .any(|ending| media_type.ends_with(ending));
    if known {
        return Ok(());
    }
    Err(Error::Unimplemented {
        reason: format!(
            "failed to get stream processor for {media_type}: no processor for media-type"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            kind: kind.into(),
            source: source.into(),
            target: String::new(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
        }
    }

    #[test]
    fn one_writable_directory_is_written_without_mounting() {
        let bind = mount("bind", "/s/1/fs", &["rw", "rbind"]);
        assert_eq!(target(&[bind]), Target::Directory("/s/1/fs".into()));
        let overlay = mount(
            "overlay",
            "overlay",
            &["index=off", "workdir=/s/3/work", "upperdir=/s/3/fs", "lowerdir=/s/2/fs:/s/1/fs"],
        );
        let upper = Target::Upper("/s/3/fs".into(), vec!["/s/2/fs".into(), "/s/1/fs".into()]);
        assert_eq!(target(&[overlay]), upper);
    }

    #[test]
    fn everything_else_is_mounted() {
        for mounts in [
            vec![],
            vec![mount("bind", "/s", &["ro", "rbind"])],
            vec![mount("overlay", "overlay", &["lowerdir=/a:/b"])],
            vec![mount("overlay", "overlay", &["userxattr", "upperdir=/a", "lowerdir=/b"])],
            vec![mount("erofs", "/image", &["loop"])],
        ] {
            assert_eq!(target(&mounts), Target::Mounted, "{mounts:?}");
        }
    }

    #[test]
    fn layers_that_need_a_processor_are_refused() {
        assert!(check_media_type("application/vnd.docker.image.rootfs.diff.tar.gzip").is_ok());
        assert!(check_media_type("application/vnd.oci.image.layer.v1.tar+zstd").is_ok());
        assert!(check_media_type("application/vnd.oci.image.layer.v1.tar+encrypted").is_err());
    }
}
