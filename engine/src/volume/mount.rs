//! The options of the local driver: `type`, `o`, `device`, as given to mount(2).

use std::net::ToSocketAddrs;
use std::path::Path;

use docker_api::StringMap;
use nix::mount::{MntFlags, MsFlags};

use super::VolumeError;

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum OptionError {
    #[error("invalid option: \"{0}\"")]
    Unknown(String),
    #[error("missing required option: \"{0}\"")]
    Missing(&'static str),
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountOptions {
    kind: String,
    device: String,
    flags: MsFlags,
    data: String,
}

impl MountOptions {
    pub(crate) fn parse(options: &StringMap) -> Result<Self, OptionError> {
        // `size` is project quota: refused rather than ignored.
        if let Some(key) =
            options.keys().find(|key| !["type", "o", "device"].contains(&key.as_str()))
        {
            return Err(OptionError::Unknown(key.clone()));
        }
        let get = |key: &str| options.get(key).map(String::as_str).filter(|text| !text.is_empty());
        let device = get("device").ok_or(OptionError::Missing("device"))?;
        let kind = get("type").ok_or(OptionError::Missing("type"))?;
        let mut flags = MsFlags::empty();
        let mut data = Vec::new();
        for option in get("o").unwrap_or_default().split(',').filter(|option| !option.is_empty()) {
            match flag(option) {
                Some((bits, true)) => flags.insert(bits),
                Some((bits, false)) => flags.remove(bits),
                None => data.push(option),
            }
        }
        Ok(Self { kind: kind.to_owned(), device: device.to_owned(), flags, data: data.join(",") })
    }

    pub(crate) fn mount(&self, target: &Path) -> Result<(), VolumeError> {
        let failed = |source: std::io::Error| VolumeError::Mount {
            device: self.device.clone(),
            target: target.to_owned(),
            flags: if self.data.is_empty() {
                String::new()
            } else {
                format!(", data: {}", self.data)
            },
            source,
        };
        let data = self.resolved_data().map_err(failed)?;
        // A bind has no type of its own; mount(8) accepts `none`.
        let kind = if self.kind == "bind" { "none" } else { self.kind.as_str() };
        nix::mount::mount(
            Some(self.device.as_str()),
            target,
            Some(kind),
            self.flags,
            Some(data.as_str()).filter(|data| !data.is_empty()),
        )
        .map_err(|errno| failed(errno.into()))?;
        let later =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if self.flags.contains(MsFlags::MS_BIND) && self.flags.intersects(later) {
            // A bind mount takes its flags by a second call.
            let flags = MsFlags::MS_REMOUNT | self.flags;
            nix::mount::mount(None::<&str>, target, None::<&str>, flags, None::<&str>).map_err(
                |errno| {
                    drop(unmount(target));
                    failed(errno.into())
                },
            )?;
        }
        Ok(())
    }

    /// The kernel's nfs and cifs want `addr=` as an address; people give names.
    fn resolved_data(&self) -> std::io::Result<String> {
        if !self.kind.starts_with("nfs") && self.kind != "cifs" {
            return Ok(self.data.clone());
        }
        let resolved = self.data.split(',').map(|option| match option.strip_prefix("addr=") {
            Some(host) if host.parse::<std::net::IpAddr>().is_err() => {
                let mut found = (host, 0u16).to_socket_addrs()?;
                let address = found.next().ok_or(std::io::ErrorKind::NotFound)?;
                Ok(format!("addr={}", address.ip()))
            }
            _ => Ok(option.to_owned()),
        });
        Ok(resolved.collect::<std::io::Result<Vec<_>>>()?.join(","))
    }
}

/// mount(8)'s names that are flags; the rest is the file system's own.
fn flag(option: &str) -> Option<(MsFlags, bool)> {
    Some(match option {
        "defaults" => (MsFlags::empty(), true),
        "ro" => (MsFlags::MS_RDONLY, true),
        "rw" => (MsFlags::MS_RDONLY, false),
        "nosuid" => (MsFlags::MS_NOSUID, true),
        "suid" => (MsFlags::MS_NOSUID, false),
        "nodev" => (MsFlags::MS_NODEV, true),
        "dev" => (MsFlags::MS_NODEV, false),
        "noexec" => (MsFlags::MS_NOEXEC, true),
        "exec" => (MsFlags::MS_NOEXEC, false),
        "sync" => (MsFlags::MS_SYNCHRONOUS, true),
        "async" => (MsFlags::MS_SYNCHRONOUS, false),
        "dirsync" => (MsFlags::MS_DIRSYNC, true),
        "mand" => (MsFlags::MS_MANDLOCK, true),
        "nomand" => (MsFlags::MS_MANDLOCK, false),
        "noatime" => (MsFlags::MS_NOATIME, true),
        "atime" => (MsFlags::MS_NOATIME, false),
        "nodiratime" => (MsFlags::MS_NODIRATIME, true),
        "diratime" => (MsFlags::MS_NODIRATIME, false),
        "relatime" => (MsFlags::MS_RELATIME, true),
        "norelatime" => (MsFlags::MS_RELATIME, false),
        "strictatime" => (MsFlags::MS_STRICTATIME, true),
        "nostrictatime" => (MsFlags::MS_STRICTATIME, false),
        "bind" => (MsFlags::MS_BIND, true),
        "rbind" => (MsFlags::MS_BIND.union(MsFlags::MS_REC), true),
        _ => return None,
    })
}

/// Whether something is mounted there: its parent is on another mount.
pub(crate) fn is_mounted(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    statx(CWD, path, flags, StatxFlags::BASIC_STATS)
        .is_ok_and(|found| found.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}

pub(crate) fn unmount(path: &Path) -> std::io::Result<()> {
    Ok(nix::mount::umount2(path, MntFlags::MNT_DETACH)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn options_are_flags_or_data(
            words in proptest::collection::vec(
                "(ro|rw|bind|rbind|noexec|size=1|addr=x|,|[a-z=]{0,4})",
                0..6,
            ),
        ) {
            let options = |o: &str| {
                let all = [("type", "t"), ("device", "d"), ("o", o)];
                StringMap::from(all.map(|(key, value)| (key.to_owned(), value.to_owned())))
            };
            let given = words.join(",");
            let parsed = MountOptions::parse(&options(&given)).unwrap();
            let mut rest: Vec<&str> = given.split(',').filter(|word| !word.is_empty()).collect();
            rest.retain(|word| flag(word).is_none());
            prop_assert_eq!(&parsed.data, &rest.join(","));
            let again = MountOptions::parse(&options(&parsed.data)).unwrap();
            prop_assert_eq!((again.flags, again.data), (MsFlags::empty(), parsed.data));
        }
    }
}
