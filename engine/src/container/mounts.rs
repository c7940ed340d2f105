//! What a container mounts, from `-v`, `--mount`, `--tmpfs`, `--volumes-from` and the image.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use docker_api::container::{Config, HostConfig};
use docker_api::mount::Mount;

use super::ContainerError;
use super::record::Mounted;

const PROPAGATIONS: &[&str] = &["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/// The mounts of a new container, by destination; volumes still without a name are anonymous.
/// `inherited` are those of the containers of `--volumes-from`.
pub(super) fn collect(
    config: &Config,
    host: &HostConfig,
    inherited: Vec<Mounted>,
) -> Result<Vec<Mounted>, ContainerError> {
    let mut all: BTreeMap<String, Mounted> = BTreeMap::new();
    for mount in inherited {
        all.insert(mount.destination.clone(), mount);
    }
    let mut given: BTreeMap<String, Mounted> = BTreeMap::new();
    let mut add = |mount: Mounted| {
        let destination = mount.destination.clone();
        match given.insert(destination.clone(), mount) {
            None => Ok(()),
            // Compat: dockerd's words.
            Some(_) => {
                Err(ContainerError::Invalid(format!("Duplicate mount point: {destination}")))
            }
        }
    };
    for bind in host.binds.iter().flatten() {
        let mount = parse_bind(bind)?;
        driver(host, &mount)?;
        add(mount)?;
    }
    for mount in host.mounts.iter().flatten() {
        add(parse_mount(mount)?)?;
    }
    for (destination, options) in host.tmpfs.iter().flatten() {
        target(destination).map_err(ContainerError::Invalid)?;
        add(Mounted {
            kind: "tmpfs".to_owned(),
            destination: clean(destination),
            rw: true,
            tmpfs: options.clone(),
            ..Mounted::default()
        })?;
    }
    all.extend(given);
    for destination in config.volumes.iter().flatten().map(|(path, _)| clean(path)) {
        if destination == "/" {
            return Err(ContainerError::Invalid(
                "invalid volume specification: destination can't be '/'".to_owned(),
            ));
        }
        let volume = Mounted {
            kind: "volume".to_owned(),
            destination: destination.clone(),
            driver: "local".to_owned(),
            rw: true,
            anonymous: true,
            ..Mounted::default()
        };
        if let Entry::Vacant(free) = all.entry(destination) {
            driver(host, &volume)?;
            free.insert(volume);
        }
    }
    Ok(all.into_values().collect())
}

/// `--volume-driver` counts for volumes that no `--mount` describes.
fn driver(host: &HostConfig, mount: &Mounted) -> Result<(), ContainerError> {
    if mount.kind != "volume" || matches!(host.volume_driver.as_str(), "" | "local") {
        return Ok(());
    }
    let volume = if mount.anonymous {
        crate::sys::dirs::random_id().unwrap_or_default()
    } else {
        mount.name.clone()
    };
    Err(ContainerError::NoVolumeDriver { volume, driver: host.volume_driver.clone() })
}

/// `src:dst[:mode]` or `dst`.
fn parse_bind(text: &str) -> Result<Mounted, ContainerError> {
    let invalid = || ContainerError::Invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, destination, mode) = match parts[..] {
        [destination] => ("", destination, ""),
        [source, destination] => (source, destination, ""),
        [source, destination, mode] => (source, destination, mode),
        _ => return Err(invalid()),
    };
    if parts.iter().take(2).any(|part| part.is_empty()) {
        return Err(invalid());
    }
    target(destination).map_err(|reason| {
        ContainerError::Invalid(format!(
            "invalid volume specification: '{text}': invalid mount config for type \"{}\": {reason}",
            if source.starts_with('/') { "bind" } else { "volume" },
        ))
    })?;
    let mut mount = Mounted {
        destination: clean(destination),
        mode: mode.to_owned(),
        rw: true,
        create_source: true,
        ..Mounted::default()
    };
    // Of each kind one word at most.
    let mut said = [false; 5];
    for option in mode.split(',').filter(|option| !option.is_empty()) {
        let kind = match option {
            "ro" | "rw" => {
                mount.rw = option == "rw";
                0
            }
            "z" | "Z" => 1,
            "consistent" | "cached" | "delegated" => 2,
            "nocopy" => {
                mount.no_copy = true;
                3
            }
            other if PROPAGATIONS.contains(&other) => {
                mount.propagation = other.to_owned();
                4
            }
            _ => return Err(ContainerError::Invalid(format!("invalid mode: {mode}"))),
        };
        if std::mem::replace(&mut said[kind], true) {
            return Err(ContainerError::Invalid(format!("invalid mode: {mode}")));
        }
    }
    if source.starts_with('/') {
        mount.kind = "bind".to_owned();
        mount.source = clean(source);
        if mount.propagation.is_empty() {
            mount.propagation = "rprivate".to_owned();
        }
    } else {
        mount.kind = "volume".to_owned();
        mount.name = source.to_owned();
        mount.driver = "local".to_owned();
        mount.anonymous = source.is_empty();
        // Compat: a named volume shows the mode z.
        if mode.is_empty() && !source.is_empty() {
            mount.mode = "z".to_owned();
        }
    }
    Ok(mount)
}

fn parse_mount(mount: &Mount) -> Result<Mounted, ContainerError> {
    let invalid = |reason: &str| {
        ContainerError::Invalid(format!(
            "invalid mount config for type \"{}\": {reason}",
            mount.kind
        ))
    };
    // Options of another type would be forgotten.
    for (options, kind, given) in [
        ("BindOptions", "bind", mount.bind_options.is_some()),
        ("VolumeOptions", "volume", mount.volume_options.is_some()),
        ("ImageOptions", "image", mount.image_options.is_some()),
        ("TmpfsOptions", "tmpfs", mount.tmpfs_options.is_some()),
    ] {
        if given && mount.kind != kind {
            return Err(ContainerError::Invalid(format!(
                "{options} must not be specified on mount type \"{}\"",
                mount.kind
            )));
        }
    }
    if mount.target.is_empty() {
        return Err(invalid("field Target must not be empty"));
    }
    target(&mount.target).map_err(|reason| invalid(&reason))?;
    let mut result = Mounted {
        kind: mount.kind.clone(),
        destination: clean(&mount.target),
        rw: !mount.read_only,
        ..Mounted::default()
    };
    match mount.kind.as_str() {
        "bind" => {
            if mount.source.is_empty() {
                return Err(invalid("field Source must not be empty"));
            }
            if !mount.source.starts_with('/') {
                return Err(invalid(&format!(
                    "invalid mount path: '{}' mount path must be absolute",
                    mount.source
                )));
            }
            let options = mount.bind_options.clone().unwrap_or_default();
            result.source = clean(&mount.source);
            result.propagation = match options.propagation.as_str() {
                "" => "rprivate".to_owned(),
                known if PROPAGATIONS.contains(&known) => known.to_owned(),
                other => return Err(invalid(&format!("invalid propagation mode: {other}"))),
            };
            result.non_recursive = options.non_recursive;
            result.read_only_top = options.read_only_non_recursive;
            result.read_only_force = options.read_only_force_recursive;
            if options.read_only_non_recursive && options.read_only_force_recursive {
                return Err(invalid(
                    "mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive",
                ));
            }
            for (name, given) in [
                ("ReadOnlyNonRecursive", options.read_only_non_recursive),
                ("ReadOnlyForceRecursive", options.read_only_force_recursive),
            ] {
                if given && !mount.read_only {
                    return Err(ContainerError::Invalid(format!(
                        "mount options conflict: !ReadOnly && BindOptions.{name}"
                    )));
                }
            }
            result.create_source = options.create_mountpoint;
            if !result.create_source && !std::path::Path::new(&mount.source).exists() {
                return Err(invalid(&format!("bind source path does not exist: {}", mount.source)));
            }
        }
        "volume" => {
            let options = mount.volume_options.clone().unwrap_or_default();
            result.name = mount.source.clone();
            result.anonymous = mount.source.is_empty();
            let driver = options.driver_config.unwrap_or_default();
            if !matches!(driver.name.as_str(), "" | "local") {
                return Err(ContainerError::NoVolumeDriver {
                    volume: mount.source.clone(),
                    driver: driver.name,
                });
            }
            result.driver = "local".to_owned();
            result.driver_opts = driver.options;
            result.labels = options.labels;
            result.no_copy = options.no_copy;
            if options.subpath.starts_with('/') {
                return Err(invalid("subpath must be a relative path within the volume"));
            }
            result.subpath = options.subpath;
            result.mode = "z".to_owned();
        }
        "tmpfs" => {
            if !mount.source.is_empty() {
                return Err(invalid("field Source must not be specified"));
            }
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            let mut words = Vec::new();
            if options.size_bytes > 0 {
                words.push(format!("size={}", size(options.size_bytes)));
            }
            if options.mode > 0 {
                words.push(format!("mode={:o}", options.mode));
            }
            for option in options.options.into_iter().flatten() {
                match option.as_slice() {
                    [flag] if matches!(flag.as_str(), "exec" | "noexec") => {
                        words.push(flag.clone());
                    }
                    other => {
                        let name = other.first().cloned().unwrap_or_default();
                        return Err(invalid(&format!("invalid option: {name}")));
                    }
                }
            }
            if mount.read_only {
                words.push("ro".to_owned());
            }
            result.tmpfs = words.join(",");
        }
        "image" => {
            return Err(ContainerError::NotImplemented(
                "image mounts are not supported yet".to_owned(),
            ));
        }
        _ => return Err(invalid("mount type unknown")),
    }
    Ok(result)
}

/// Where something may be mounted: dockerd's words for where not.
fn target(path: &str) -> Result<(), String> {
    if clean(path) == "/" && path.starts_with('/') {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    if !path.starts_with('/') {
        return Err(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    Ok(())
}

/// Bytes in the largest unit that leaves none over, as dockerd writes the size of a tmpfs.
fn size(mut bytes: i64) -> String {
    let mut unit = "";
    for next in ["k", "m", "g"] {
        if bytes % 1024 != 0 {
            break;
        }
        bytes /= 1024;
        unit = next;
    }
    format!("{bytes}{unit}")
}

/// A path without `//`, `.`, `..` and trailing slash, as Go's `filepath.Clean`.
pub(crate) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn binds_and_volumes_are_told_apart() {
        let bind = parse_bind("/a/../b:/c/:ro,rshared").unwrap();
        assert_eq!((bind.kind.as_str(), bind.source.as_str(), bind.rw), ("bind", "/b", false));
        assert_eq!((bind.destination.as_str(), bind.propagation.as_str()), ("/c", "rshared"));
        let volume = parse_bind("data:/d").unwrap();
        assert_eq!((volume.kind.as_str(), volume.name.as_str()), ("volume", "data"));
    }

    #[test]
    fn bad_binds_name_themselves() {
        for bad in ["a:b:c:d", "x:/", ":/a", "/a:rel"] {
            let text = parse_bind(bad).unwrap_err().to_string();
            assert!(text.contains(bad), "{text}");
        }
        // Compat: of a mode only itself.
        assert_eq!(parse_bind("/a:/b:wat").unwrap_err().to_string(), "invalid mode: wat");
    }

    #[test]
    fn options_of_another_type_and_unknown_drivers_are_refused() {
        let refused = |change: fn(&mut Mount)| {
            let mut mount = Mount {
                kind: "volume".to_owned(),
                source: "v".to_owned(),
                target: "/x".to_owned(),
                ..Mount::default()
            };
            change(&mut mount);
            parse_mount(&mount).unwrap_err().to_string()
        };
        assert_eq!(
            refused(|mount| mount.bind_options = Some(Default::default())),
            "BindOptions must not be specified on mount type \"volume\""
        );
        assert_eq!(
            refused(|mount| {
                mount.volume_options.get_or_insert_default().driver_config =
                    Some(docker_api::mount::DriverConfig {
                        name: "nope".to_owned(),
                        options: None,
                    });
            }),
            "create v: error looking up volume plugin nope: plugin \"nope\" not found"
        );
        assert_eq!(
            refused(|mount| {
                mount.volume_options.get_or_insert_default().subpath = "/a".to_owned();
            }),
            "invalid mount config for type \"volume\": subpath must be a relative path within the volume"
        );
        assert_eq!(
            refused(|mount| mount.kind = "cluster".to_owned()),
            "invalid mount config for type \"cluster\": mount type unknown"
        );
        assert_eq!(
            refused(|mount| {
                mount.kind = "tmpfs".to_owned();
                mount.source.clear();
                mount.tmpfs_options.get_or_insert_default().options =
                    Some(vec![vec!["uid".to_owned(), "5".to_owned()]]);
            }),
            "invalid mount config for type \"tmpfs\": invalid option: uid"
        );
        let host = HostConfig {
            binds: Some(vec!["data:/d".to_owned()]),
            volume_driver: "nope".to_owned(),
            ..HostConfig::default()
        };
        let error = collect(&Config::default(), &host, vec![]).unwrap_err().to_string();
        assert_eq!(
            error,
            "create data: error looking up volume plugin nope: plugin \"nope\" not found"
        );
    }

    #[test]
    fn sizes_of_a_tmpfs_have_dockers_units() {
        assert_eq!([size(65536), size(3 << 30), size(1025)], ["64k", "3g", "1025"]);
    }

    #[test]
    fn two_mounts_on_one_path_are_refused() {
        let host = HostConfig {
            binds: Some(vec!["/a:/x".to_owned(), "/b:/x".to_owned()]),
            ..HostConfig::default()
        };
        let error = collect(&Config::default(), &host, vec![]).unwrap_err();
        assert_eq!(error.to_string(), "Duplicate mount point: /x");
    }

    proptest! {
        #[test]
        fn a_bind_is_refused_or_clean(
            text in "[a./]{0,8}(:[a./]{0,8}(:(ro|rw|z|nocopy|shared|cached|,|x){0,4})?)?",
        ) {
            let Ok(mount) = parse_bind(&text) else { return Ok(()) };
            prop_assert_eq!(clean(&mount.destination), mount.destination.clone());
            prop_assert!(mount.destination.len() > 1);
            match mount.kind.as_str() {
                "bind" => prop_assert_eq!(clean(&mount.source), mount.source),
                kind => prop_assert!(kind == "volume" && mount.anonymous == mount.name.is_empty()),
            }
        }

        #[test]
        fn a_clean_path_is_what_the_kernel_would_make_of_it(text in "[a./]{0,14}") {
            let path = clean(&text);
            prop_assert_eq!(clean(&path), path.clone());
            let mut walked = std::path::PathBuf::from("/");
            for part in std::path::Path::new(&text).components() {
                match part {
                    std::path::Component::Normal(name) => walked.push(name),
                    std::path::Component::ParentDir => drop(walked.pop()),
                    _ => {}
                }
            }
            prop_assert_eq!(std::path::Path::new(&path), walked);
        }
    }
}
