//! Images for tests: the distribution's static busybox, made once and kept below `target`.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::parts;

/// The docker-archive of `busybox:latest`.
///
/// # Panics
/// When it cannot be made.
pub fn busybox_archive() -> &'static Path {
    static ARCHIVE: OnceLock<PathBuf> = OnceLock::new();
    ARCHIVE.get_or_init(|| {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let target = tests.join("../target");
        let script = tests.join("scripts/image.sh");
        // The name changes with what the archive is made of.
        let parts = [parts::busybox(), script.clone()].map(|path| {
            let data = fs::metadata(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            format!("{:x}-{:x}", data.mtime(), data.len())
        });
        let archive = target.join(format!("busybox-{}.tar", parts.join("-")));
        if !archive.exists() {
            let own = target.join(format!("busybox-{}.tmp", std::process::id()));
            let made = Command::new(&script).arg(&own).status().expect("image.sh runs");
            assert!(made.success(), "image.sh: {made}");
            // `target` is the builder's, also when the tests run as root.
            if let Ok(data) = fs::metadata(&target) {
                std::os::unix::fs::chown(&own, Some(data.uid()), Some(data.gid())).ok();
            }
            fs::rename(&own, &archive).expect("renaming the archive");
        }
        archive
    })
}

/// A file of a layer: path and content; a path that ends with `/` is a directory.
pub type Entry<'a> = (&'a str, &'a str);

/// A layer's tar.
///
/// # Panics
/// Never in practice.
#[must_use]
pub fn layer(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_ustar();
        let directory = path.ends_with('/');
        header.set_entry_type(if directory {
            tar::EntryType::Directory
        } else {
            tar::EntryType::Regular
        });
        header.set_mode(if directory { 0o755 } else { 0o644 });
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, path, content.as_bytes()).expect("writing to memory");
    }
    tar.into_inner().expect("writing to memory")
}

/// The one layer of [`busybox_archive`].
///
/// # Panics
/// When it is not there.
#[must_use]
pub fn busybox_layer() -> Vec<u8> {
    let file = fs::File::open(busybox_archive()).expect("the archive");
    let mut archive = tar::Archive::new(file);
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("a tar");
        if entry.path().expect("a path").ends_with("layer.tar") {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut bytes).expect("a layer");
            return bytes;
        }
    }
    panic!("no layer in {}", busybox_archive().display());
}

/// A docker-archive of an image.
///
/// # Panics
/// Never in practice.
#[must_use]
pub fn archive(name: &str, config: &Value, layers: &[Vec<u8>]) -> Vec<u8> {
    let mut config = config.clone();
    let ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    config["rootfs"] = json!({"type": "layers", "diff_ids": ids});
    config["os"] = json!("linux");
    config["architecture"] = json!(architecture());
    let config = config.to_string();
    let config_name = format!("{}.json", &digest(config.as_bytes())[7..]);
    let layer_names: Vec<String> =
        (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let manifest =
        json!([{"Config": config_name, "RepoTags": [name], "Layers": layer_names}]).to_string();
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes).expect("writing to memory");
    };
    for (path, bytes) in layer_names.iter().zip(layers) {
        add(path, bytes);
    }
    add(&config_name, config.as_bytes());
    add("manifest.json", manifest.as_bytes());
    tar.into_inner().expect("writing to memory")
}

/// The platform's architecture as images name it.
#[must_use]
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `sha256:…` of bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
