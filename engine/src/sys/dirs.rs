//! The engine's directories and its identity.

use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use anyhow::Context;

use crate::config::Config;
use crate::store;

/// Makes what is missing and returns the identity of this data root.
pub(crate) fn prepare(config: &Config) -> anyhow::Result<String> {
    let data = &config.data_root;
    let exec = &config.exec_root;
    make(data, 0o710)?;
    make(exec, 0o711)?;
    for name in ["containers", "networks", "volumes"] {
        make(&data.join(name), 0o710)?;
    }
    std::fs::set_permissions(data.join("volumes"), std::fs::Permissions::from_mode(0o711))?;
    for name in ["a", "c", "netns", "rootfs", "shm"] {
        make(&exec.join(name), 0o711)?;
    }
    let path = data.join("dockerd-rs-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => Ok(id.trim().to_owned()),
        _ => {
            let id = random_uuid()?;
            store::write_bytes(&path, id.as_bytes(), store::Durability::Synced)
                .context("write dockerd-rs-id")?;
            Ok(id)
        }
    }
}

/// Makes a directory and its parents.
pub(crate) fn make(path: &Path, mode: u32) -> anyhow::Result<()> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .with_context(|| format!("create {}", path.display()))
}

/// 64 hexadecimal digits: an id of a container or exec.
pub(crate) fn random_id() -> Result<String, getrandom::Error> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes)?;
    Ok(hex(&bytes))
}

fn random_uuid() -> anyhow::Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("random bytes: {error}"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let text = hex(&bytes);
    Ok([&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-"))
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
