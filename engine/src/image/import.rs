//! `docker import`: a root file system in a tar becomes an image of one layer.
//!
//! The tar is kept in a file while it is hashed, then handed to containerd as an OCI layout.

use std::io::Read;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use docker_api::container::Config as ContainerConfig;
use futures_util::{Stream, StreamExt};
use oci_image::digest::{Digest, HashingReader};
use oci_image::layer::{Compression, decompress};
use oci_image::platform::Platform;
use serde_json::json;
use tokio::io::AsyncWriteExt;

use super::ImageError;

/// The tar on disk; gone when dropped.
#[derive(Debug)]
pub(crate) struct Spool {
    path: PathBuf,
}

impl Drop for Spool {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, path = %self.path.display(), "could not remove an imported tar");
        }
    }
}

/// What one import makes, but for the layer's bytes.
#[derive(Debug)]
pub(crate) struct Layout {
    /// Everything that stands before the layer in the archive: whole tar entries.
    head: Vec<u8>,
    layer: Digest,
    layer_size: u64,
    pub(crate) manifest: Digest,
}

/// Writes the body down.
pub(crate) async fn spool<S, E>(directory: &Path, body: S) -> Result<Spool, ImageError>
where
    S: Stream<Item = Result<Bytes, E>>,
    E: std::fmt::Display,
{
    let name = crate::sys::dirs::random_id().map_err(|_error| ImageError::Random)?;
    let path = directory.join(format!("import-{}", name.get(..16).unwrap_or(&name)));
    let failed = |source| ImageError::Spool { path: path.clone(), source };
    tokio::fs::create_dir_all(directory).await.map_err(failed)?;
    let mut options = tokio::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).open(&path).await.map_err(failed)?;
    let spool = Spool { path: path.clone() };
    tokio::pin!(body);
    while let Some(chunk) = body.next().await {
        let chunk = chunk.map_err(|error| ImageError::Archive(error.to_string()))?;
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    Ok(spool)
}

/// Hashes the layer and makes the documents around it. Blocks.
pub(crate) fn layout(
    spool: &Spool,
    name: Option<&str>,
    message: &str,
    config: &ContainerConfig,
    platform: &Platform,
) -> Result<Layout, ImageError> {
    let failed = |source| ImageError::Spool { path: spool.path.clone(), source };
    let file = std::fs::File::open(&spool.path).map_err(failed)?;
    let mut outer = HashingReader::new(std::io::BufReader::with_capacity(1 << 20, file));
    let (compression, inner) = decompress(&mut outer).map_err(failed)?;
    let mut inner = HashingReader::new(inner);
    check_tar(&mut inner)?;
    std::io::copy(&mut inner, &mut std::io::sink()).map_err(failed)?;
    let (diff_id, _size) = inner.finish();
    std::io::copy(&mut outer, &mut std::io::sink()).map_err(failed)?;
    let suffix = match compression {
        Compression::None => "",
        Compression::Gzip => "+gzip",
        Compression::Zstd => "+zstd",
    };
    let (layer, layer_size) = outer.finish();
    let now = super::now();
    let comment = if message.is_empty() { "Imported from -" } else { message };
    let document = json!({
        "created": now,
        "architecture": platform.architecture,
        "os": platform.os,
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [diff_id.to_string()] },
        "history": [{ "created": now, "comment": comment }],
    });
    let config = document.to_string().into_bytes();
    let config_digest = Digest::of(&config);
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": config_digest.to_string(),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": format!("application/vnd.oci.image.layer.v1.tar{suffix}"),
            "digest": layer.to_string(),
            "size": layer_size,
        }],
    });
    let manifest = manifest.to_string().into_bytes();
    let manifest_digest = Digest::of(&manifest);
    let mut descriptor = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "digest": manifest_digest.to_string(),
        "size": manifest.len(),
        "platform": { "architecture": platform.architecture, "os": platform.os },
    });
    if let Some(name) = name {
        descriptor["annotations"] = json!({ "io.containerd.image.name": name });
    }
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] }).to_string().into_bytes();
    let mut head = Vec::new();
    entry(&mut head, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    entry(&mut head, "index.json", &index);
    entry(&mut head, &format!("blobs/sha256/{}", manifest_digest.hex()), &manifest);
    entry(&mut head, &format!("blobs/sha256/{}", config_digest.hex()), &config);
    head.extend(header(&format!("blobs/sha256/{}", layer.hex()), layer_size));
    Ok(Layout { head, layer, layer_size, manifest: manifest_digest })
}

/// Compat: what is no tar is refused before anything is stored.
fn check_tar(reader: &mut impl Read) -> Result<(), ImageError> {
    let mut block = [0u8; 512];
    let mut filled = 0;
    while filled < block.len() {
        let rest = block.get_mut(filled..).unwrap_or_default();
        match reader.read(rest).map_err(|error| ImageError::Archive(error.to_string()))? {
            0 => break,
            n => filled += n,
        }
    }
    let header = tar::Header::from_byte_slice(&block);
    let sum: u32 = block
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum();
    let empty = filled == block.len() && block.iter().all(|byte| *byte == 0);
    if empty || (filled == block.len() && header.cksum().is_ok_and(|stated| stated == sum)) {
        return Ok(());
    }
    let reason =
        if filled < block.len() { "unexpected EOF" } else { "archive/tar: invalid tar header" };
    Err(ImageError::Archive(reason.to_owned()))
}

/// The layout as one archive, the layer read from the file as it goes.
pub(crate) fn archive(
    spool: &Spool,
    layout: &Layout,
) -> impl Stream<Item = Result<Bytes, std::io::Error>> + Send + use<> {
    let (path, head) = (spool.path.clone(), Bytes::from(layout.head.clone()));
    // The layer's padding and the archive's end.
    let padding = layout.layer_size.next_multiple_of(512) - layout.layer_size;
    let tail = vec![0u8; usize::try_from(padding).unwrap_or_default() + 1024];
    tracing::debug!(layer = %layout.layer, size = layout.layer_size, "importing a layer");
    async_stream::try_stream! {
        yield head;
        let file = tokio::fs::File::open(path).await?;
        let mut chunks = tokio_util::io::ReaderStream::with_capacity(file, 256 << 10);
        while let Some(chunk) = chunks.next().await {
            yield chunk?;
        }
        yield Bytes::from(tail);
    }
}

fn entry(out: &mut Vec<u8>, name: &str, content: &[u8]) {
    out.extend(header(name, content.len() as u64));
    out.extend(content);
    out.resize(out.len().next_multiple_of(512), 0);
}

fn header(name: &str, size: u64) -> [u8; 512] {
    let mut header = tar::Header::new_gnu();
    // Names here are short and plain: they always fit.
    let _fits: std::io::Result<()> = header.set_path(name);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_cksum();
    *header.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_tar_is_told_from_noise() {
        let mut good = Vec::new();
        entry(&mut good, "etc/passwd", b"root");
        check_tar(&mut good.as_slice()).unwrap();
        assert!(check_tar(&mut [7u8; 512].as_slice()).is_err());
        assert!(check_tar(&mut b"short".as_slice()).is_err());
        check_tar(&mut [0u8; 1024].as_slice()).unwrap();
    }

    #[test]
    fn the_layout_holds_one_layer_and_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t");
        let mut tar = Vec::new();
        entry(&mut tar, "hello", b"world");
        tar.extend([0u8; 1024]);
        std::fs::write(&path, &tar).unwrap();
        let spool = Spool { path };
        let name = Some("docker.io/library/x:latest");
        let config = ContainerConfig { cmd: Some(vec!["sh".into()]), ..Default::default() };
        let layout = layout(&spool, name, "", &config, &Platform::host()).unwrap();
        assert_eq!(layout.layer, Digest::of(&tar));
        let whole = [layout.head.as_slice(), &tar, &[0u8; 1024]].concat();
        let mut archive = tar::Archive::new(whole.as_slice());
        let names: Vec<_> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().to_string_lossy().into_owned())
            .collect();
        assert_eq!(names.len(), 5);
        assert_eq!(names[4], format!("blobs/sha256/{}", layout.layer.hex()));
        let text = String::from_utf8_lossy(&layout.head);
        assert!(text.contains("docker.io/library/x:latest") && text.contains("Imported from -"));
    }

    proptest! {
        #[test]
        fn what_is_no_tar_is_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            at in 0_usize..512,
            byte: u8,
        ) {
            let noise = check_tar(&mut bytes.as_slice());
            prop_assert!(noise.is_err());
            let mut whole = header("a", 5);
            prop_assert!(check_tar(&mut whole.as_slice()).is_ok());
            let changed = whole[at] != byte;
            whole[at] = byte;
            // The sum tells of any single byte, but for how the sum itself is spelled.
            if changed && !(148..156).contains(&at) {
                prop_assert!(check_tar(&mut whole.as_slice()).is_err());
            }
        }
    }
}
