//! An ordinary user's containers: who we are, what such a container cannot have, and its id maps.
//!
//! A user without privileges has all rights in a user namespace of its own, and none outside: what
//! else the runtime does from outside, the container's first process does there itself. More than the
//! user's own id is mapped by newuidmap(1) and newgidmap(1).

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{anyhow, bail};

use crate::spec::mounts::map_text;
use crate::spec::oci::{IdMapping, Spec};
use crate::spec::plan::PlanError;
use crate::sys::{self, errno_of, errno_text};

/// Whether we are an ordinary user.
pub(crate) fn unprivileged() -> bool {
    !rustix::process::geteuid().is_root()
}

fn in_user_namespace() -> bool {
    // The number that the kernel gives the first one.
    const FIRST: u64 = 0xefff_fffd;
    static INSIDE: OnceLock<bool> = OnceLock::new();
    let look = || std::fs::metadata("/proc/self/ns/user").is_ok_and(|own| own.ino() != FIRST);
    *INSIDE.get_or_init(look)
}

/// Whether the groups of a process cannot be changed: a single id was mapped.
pub(crate) fn groups_are_fixed() -> bool {
    unprivileged()
        || in_user_namespace()
            && std::fs::read_to_string("/proc/self/setgroups").is_ok_and(|text| text == "deny\n")
}

/// The capabilities that a container can be given: in its user namespace a user has all.
pub(crate) fn capabilities_to_give() -> u64 {
    if unprivileged() { u64::MAX } else { sys::identity::permitted().unwrap_or(u64::MAX) }
}

/// `--rootless`: `None` is auto.
pub(crate) fn choice(value: Option<&str>) -> anyhow::Result<Option<bool>> {
    match value {
        None | Some("auto") => Ok(None),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(Some(true)),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(Some(false)),
        // Compat: Go's words.
        Some(other) => bail!("strconv.ParseBool: parsing {other:?}: invalid syntax"),
    }
}

/// Whether cgroups may be out of reach without that being an error.
pub(crate) fn cgroups_are_optional(choice: Option<bool>) -> bool {
    choice.unwrap_or_else(|| unprivileged() || in_user_namespace())
}

/// Whether the user's own systemd makes the cgroups. Compat: what cannot be found out is root.
pub(crate) fn has_manager(choice: Option<bool>) -> bool {
    choice.unwrap_or_else(|| {
        let own = rustix::process::geteuid().as_raw();
        let outside = || {
            let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
            outer_id(&map, own).unwrap_or(0)
        };
        own != 0 || in_user_namespace() && outside() != 0
    })
}

/// What the user namespace outside calls an id of this one.
fn outer_id(map: &str, inner: u32) -> Option<u32> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(|word| word.parse::<u32>().ok());
        let (first, outer, size) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let offset = inner.checked_sub(first).filter(|offset| *offset < size)?;
        outer.checked_add(offset)
    })
}

/// Where a user's containers are kept; made if need be.
pub(crate) fn root_of_user() -> anyhow::Result<Option<PathBuf>> {
    let Some(directory) = std::env::var_os("XDG_RUNTIME_DIR").filter(|path| !path.is_empty())
    else {
        return Ok(None);
    };
    // Compat: root's own are where they always were.
    let is_user = std::env::var_os("USER").is_none_or(|user| user != "root");
    if !(unprivileged() || in_user_namespace() && is_user) {
        return Ok(None);
    }
    let root = std::path::absolute(PathBuf::from(directory).join("runc-rs"))?;
    let failed = |call: &str, error: io::Error| {
        anyhow!(
            "{call} {}: {}: the path in $XDG_RUNTIME_DIR must be writable by the user",
            root.display(),
            errno_text(errno_of(&error))
        )
    };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&root);
    made.map_err(|error| failed("mkdir", error))?;
    // The sticky bit tells cleaners to leave it alone (XDG Base Directory Specification).
    let mode = std::fs::Permissions::from_mode(0o1700);
    std::fs::set_permissions(&root, mode).map_err(|error| failed("chmod", error))?;
    Ok(Some(root))
}

/// What an ordinary user cannot ask for. Compat: runc's sentences.
pub(crate) fn check(spec: &Spec) -> Result<(), PlanError> {
    let linux = spec.linux.clone().unwrap_or_default();
    let wrong = |text: String| Err(PlanError::Rootless(text));
    if !linux.namespaces.iter().any(|namespace| namespace.kind == "user") {
        return wrong("rootless container requires user namespaces".to_owned());
    }
    if spec.process.as_ref().is_some_and(|process| !process.user.additional_gids.is_empty()) {
        return wrong(NO_GROUPS.to_owned());
    }
    for mount in &spec.mounts {
        if !mount.uid_mappings.is_empty()
            || !mount.gid_mappings.is_empty()
            || mount.options.iter().any(|option| option == "idmap" || option == "ridmap")
        {
            return wrong(format!(
                "invalid mount {}: id-mapped mounts are not supported for rootless containers",
                mount.destination
            ));
        }
        for option in &mount.options {
            for (name, mappings) in [("uid", &linux.uid_mappings), ("gid", &linux.gid_mappings)] {
                let Some(id) = option.strip_prefix(name).and_then(|rest| rest.strip_prefix('='))
                else {
                    continue;
                };
                if id.parse().is_ok_and(|id| !has(mappings, id)) {
                    return wrong(format!(
                        "cannot specify {option} mount option for rootless container: user \
                         namespaces enabled, but no mapping found for {name} {id}"
                    ));
                }
            }
        }
    }
    Ok(())
}

pub(crate) const NO_GROUPS: &str = "cannot set any additional groups in a rootless container";

fn has(mappings: &[IdMapping], id: u32) -> bool {
    mappings
        .iter()
        .any(|map| id.checked_sub(map.container_id).is_some_and(|offset| offset < map.size))
}

/// Says who is who in the user namespace of `pid`.
pub(crate) fn write_maps(pid: i32, uids: &[IdMapping], gids: &[IdMapping]) -> anyhow::Result<()> {
    if unprivileged() && is_own_group(gids) {
        // Else the user could drop groups that keep it from something.
        write(pid, "setgroups", "deny")?;
    }
    write_map(pid, "uid_map", "newuidmap", uids)?;
    write_map(pid, "gid_map", "newgidmap", gids)
}

fn is_own_group(gids: &[IdMapping]) -> bool {
    let own = rustix::process::getegid().as_raw();
    matches!(gids, [one] if one.size == 1 && one.host_id == own)
}

fn write_map(pid: i32, name: &str, tool: &str, mappings: &[IdMapping]) -> anyhow::Result<()> {
    match write(pid, name, &map_text(mappings)) {
        Err(error) if unprivileged() => {
            map_with(tool, pid, mappings).map_err(|also| anyhow!("{error} ({also})"))
        }
        result => result,
    }
}

fn write(pid: i32, name: &str, text: &str) -> anyhow::Result<()> {
    std::fs::write(format!("/proc/{pid}/{name}"), text)
        .map_err(|error| anyhow!("failed to write {name}: {}", errno_text(errno_of(&error))))
}

fn map_with(tool: &str, pid: i32, mappings: &[IdMapping]) -> anyhow::Result<()> {
    let numbers = mappings.iter().flat_map(|map| [map.container_id, map.host_id, map.size]);
    let output = Command::new(tool)
        .arg(pid.to_string())
        .args(numbers.map(|number| number.to_string()))
        .output()
        .map_err(|error| match error.kind() {
            // Compat: Go's words.
            io::ErrorKind::NotFound => {
                anyhow!("exec: {tool:?}: executable file not found in $PATH")
            }
            _ => anyhow!("exec: {tool:?}: {}", errno_text(errno_of(&error))),
        })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        bail!("failed to use {tool}: {}", text.trim_end().replace('\n', "; "));
    }
    Ok(())
}

/// Our own OOM score until it is dropped: what is born meanwhile keeps it. A user may not write that
/// of a process that shows itself to nobody.
#[derive(Debug)]
pub(crate) struct OomScore {
    file: OwnedFd,
    before: String,
}

impl OomScore {
    pub(crate) fn set(score: Option<i32>) -> anyhow::Result<Option<Self>> {
        let Some(score) = score.filter(|_| unprivileged()) else { return Ok(None) };
        let path = "/proc/self/oom_score_adj";
        let failed = |error: io::Error| {
            anyhow!(
                "unable to start container process: write oom_score_adj: {}",
                errno_text(errno_of(&error))
            )
        };
        let before = std::fs::read_to_string(path).map_err(failed)?;
        let file = std::fs::OpenOptions::new().write(true).open(path).map_err(failed)?.into();
        let set = Self { file, before };
        set.write(&score.to_string()).map_err(failed)?;
        Ok(Some(set))
    }

    fn write(&self, text: &str) -> io::Result<()> {
        Ok(rustix::io::pwrite(&self.file, text.as_bytes(), 0).map(drop)?)
    }
}

impl Drop for OomScore {
    fn drop(&mut self) {
        // Upwards it may always go; where it cannot, we are gone in a moment.
        self.write(self.before.trim_end()).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rootless_is_a_bool_as_go_reads_it_or_auto() {
        for (text, wanted) in
            [("auto", None), ("true", Some(true)), ("T", Some(true)), ("0", Some(false))]
        {
            assert_eq!(choice(Some(text)).unwrap(), wanted, "{text}");
        }
        let error = choice(Some("maybe")).unwrap_err().to_string();
        assert_eq!(error, "strconv.ParseBool: parsing \"maybe\": invalid syntax");
    }

    #[test]
    fn an_id_outside_is_found_by_the_map() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(
            [0, 1, 65_536, 65_537].map(|id| outer_id(map, id)),
            [Some(1000), Some(100_000), Some(165_535), None]
        );
        assert_eq!(outer_id("", 0), None);
    }

    #[test]
    fn an_id_is_in_a_mapping_up_to_its_end() {
        let map = [IdMapping { container_id: 5, host_id: 100, size: 2 }];
        assert_eq!([4, 5, 6, 7].map(|id| has(&map, id)), [false, true, true, false]);
        let all = [IdMapping { container_id: 0, host_id: 0, size: u32::MAX }];
        assert!(has(&all, u32::MAX - 1));
    }
}
