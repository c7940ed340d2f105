//! The value of `--mount`: one record of comma-separated values, of `name=value` each.

use docker_api::StringMap;
use docker_api::mount::{
    BindOptions, DriverConfig, ImageOptions, Mount, TmpfsOptions, VolumeOptions,
};

use crate::format::units;

/// Reads it, and refuses in the stock client's words.
pub(super) fn mount(text: &str) -> Result<Mount, String> {
    let mut mount = Mount { kind: "volume".to_owned(), ..Mount::default() };
    for field in record(text)? {
        let (typed, value) = match field.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (field.as_str(), None),
        };
        set(&mut mount, typed, value, &field)?;
    }
    check(mount)
}

fn set(mount: &mut Mount, typed: &str, value: Option<&str>, field: &str) -> Result<(), String> {
    let name = typed.to_lowercase();
    let switch = || match value {
        None => Ok(true),
        Some("1" | "t" | "T" | "true" | "TRUE" | "True") => Ok(true),
        Some("0" | "f" | "F" | "false" | "FALSE" | "False") => Ok(false),
        Some(value) => Err(wrong(typed, value)),
    };
    match name.as_str() {
        "readonly" | "ro" => {
            mount.read_only = switch()?;
            return Ok(());
        }
        "volume-nocopy" => {
            volume(mount).no_copy = switch()?;
            return Ok(());
        }
        "bind-nonrecursive" => {
            bind(mount).non_recursive = switch()?;
            return Ok(());
        }
        _ => {}
    }
    let Some(value) = value else {
        return Err(format!("invalid field '{field}' must be a key=value pair"));
    };
    match name.as_str() {
        "type" => mount.kind = value.to_lowercase(),
        "source" | "src" => mount.source = absolute(value),
        "target" | "dst" | "destination" => mount.target = value.to_owned(),
        "consistency" => mount.consistency = value.to_lowercase(),
        "bind-propagation" => bind(mount).propagation = value.to_lowercase(),
        "bind-recursive" => match value {
            "enabled" => {}
            "disabled" => bind(mount).non_recursive = true,
            "writable" => bind(mount).read_only_non_recursive = true,
            "readonly" => bind(mount).read_only_force_recursive = true,
            _ => {
                let known = "(must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")";
                return Err(format!("{} {known}", wrong(typed, value)));
            }
        },
        "volume-subpath" => value.clone_into(&mut volume(mount).subpath),
        "volume-label" => pair(&mut volume(mount).labels, value),
        "volume-driver" => value.clone_into(&mut driver(mount).name),
        "volume-opt" => pair(&mut driver(mount).options, value),
        "image-subpath" => {
            let options = mount.image_options.get_or_insert_with(ImageOptions::default);
            value.clone_into(&mut options.subpath);
        }
        "tmpfs-size" => {
            tmpfs(mount).size_bytes =
                units::parse_bytes(value).ok_or_else(|| wrong(typed, value))?;
        }
        "tmpfs-mode" => {
            tmpfs(mount).mode = u32::from_str_radix(value, 8).map_err(|_| wrong(typed, value))?;
        }
        _ => return Err(format!("unexpected key '{typed}' in '{field}'")),
    }
    Ok(())
}

fn wrong(name: &str, value: &str) -> String {
    format!("invalid value for {name}: {value}")
}

fn bind(mount: &mut Mount) -> &mut BindOptions {
    mount.bind_options.get_or_insert_with(BindOptions::default)
}

fn volume(mount: &mut Mount) -> &mut VolumeOptions {
    // Compat: an empty one, where the others are left out.
    mount.volume_options.get_or_insert_with(|| VolumeOptions {
        driver_config: Some(DriverConfig::default()),
        ..VolumeOptions::default()
    })
}

fn driver(mount: &mut Mount) -> &mut DriverConfig {
    volume(mount).driver_config.get_or_insert_with(DriverConfig::default)
}

fn tmpfs(mount: &mut Mount) -> &mut TmpfsOptions {
    mount.tmpfs_options.get_or_insert_with(TmpfsOptions::default)
}

fn pair(map: &mut Option<StringMap>, text: &str) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    map.get_or_insert_default().insert(name.to_owned(), value.to_owned());
}

/// A source that begins with a dot is below the current directory.
fn absolute(source: &str) -> String {
    if source != "." && !source.starts_with("./") && !source.starts_with("..") {
        return source.to_owned();
    }
    std::path::absolute(source)
        .map_or_else(|_| source.to_owned(), |path| path.display().to_string())
}

fn check(mount: Mount) -> Result<Mount, String> {
    if mount.kind.is_empty() {
        return Err("type is required".to_owned());
    }
    if mount.target.is_empty() {
        return Err("target is required".to_owned());
    }
    for (kind, given) in [
        ("bind", mount.bind_options.is_some()),
        ("volume", mount.volume_options.is_some()),
        ("image", mount.image_options.is_some()),
        ("tmpfs", mount.tmpfs_options.is_some()),
    ] {
        if given && mount.kind != kind {
            return Err(format!("cannot mix '{kind}-*' options with mount type '{}'", mount.kind));
        }
    }
    let Some(bind) = &mount.bind_options else { return Ok(mount) };
    let needs = |how: &str, what: &str| {
        Err(format!(
            "option 'bind-recursive={how}' requires '{what}' to be specified in conjunction"
        ))
    };
    if bind.read_only_non_recursive && !mount.read_only {
        return needs("writable", "readonly");
    }
    if bind.read_only_force_recursive && !mount.read_only {
        return needs("readonly", "readonly");
    }
    if bind.read_only_force_recursive && bind.propagation != "rprivate" {
        return needs("readonly", "bind-propagation=rprivate");
    }
    Ok(mount)
}

/// The fields of a line of comma-separated values, in which quotes may stand around a field.
fn record(line: &str) -> Result<Vec<String>, String> {
    if line.is_empty() {
        return Err("EOF".to_owned());
    }
    let (mut fields, mut rest) = (Vec::new(), line);
    loop {
        let column = line.len() - rest.len() + 1;
        let (field, after) = match rest.strip_prefix('"') {
            Some(inner) => quoted(inner, column)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                let (field, after) = rest.split_at(end);
                if let Some(at) = field.find('"') {
                    return Err(format!(
                        "parse error on line 1, column {}: bare \" in non-quoted-field",
                        column + at
                    ));
                }
                (field.to_owned(), after)
            }
        };
        fields.push(field);
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None => return Ok(fields),
        }
    }
}

/// A field behind its first quote, which stood at `column`; a quote inside is doubled.
fn quoted(inner: &str, column: usize) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = inner;
    let lost = |rest: &str| {
        let column = column + 1 + inner.len() - rest.len();
        format!("parse error on line 1, column {column}: extraneous or missing \" in quoted-field")
    };
    loop {
        let Some((before, after)) = rest.split_once('"') else { return Err(lost("")) };
        field.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None if after.is_empty() || after.starts_with(',') => return Ok((field, after)),
            None => return Err(lost(after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_asked_for_comes_into_its_place() {
        let volume =
            mount("src=v,dst=/m,volume-nocopy,volume-label=a=b,volume-label=c,ro=0").unwrap();
        assert_eq!((&*volume.kind, &*volume.source, volume.read_only), ("volume", "v", false));
        let options = volume.volume_options.unwrap();
        assert!(options.no_copy);
        let labels = [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())];
        assert_eq!(options.labels, Some(labels.into()));
        let tmpfs = mount("TYPE=TMPFS,\"DST=/a,\"\"b\",tmpfs-size=1m,tmpfs-mode=1700").unwrap();
        assert_eq!((&*tmpfs.kind, &*tmpfs.target), ("tmpfs", "/a,\"b"));
        let options = tmpfs.tmpfs_options.unwrap();
        assert_eq!((options.size_bytes, options.mode), (1 << 20, 0o1700));
        let bind = mount("type=bind,src=/s,target=/m,readonly,bind-recursive=writable").unwrap();
        assert!(bind.read_only && bind.bind_options.unwrap().read_only_non_recursive);
    }

    // Compat: each was said by docker 28.
    #[test]
    fn what_cannot_be_is_refused_in_the_stock_clients_words() {
        for (text, said) in [
            ("", "EOF"),
            ("x", "invalid field 'x' must be a key=value pair"),
            ("type=bind", "target is required"),
            ("type=,dst=/m", "type is required"),
            ("type=volume,dst=,", "invalid field '' must be a key=value pair"),
            ("type=volume,dst=/m,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
            ("=x", "unexpected key '' in '=x'"),
            ("dst=/m,readonly=maybe", "invalid value for readonly: maybe"),
            ("dst=/m,readonly=", "invalid value for readonly: "),
            (
                "type=bind,dst=/m,volume-nocopy",
                "cannot mix 'volume-*' options with mount type 'bind'",
            ),
            ("type=tmpfs,dst=/m,tmpfs-size=x", "invalid value for tmpfs-size: x"),
            ("type=tmpfs,dst=/m,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
            (
                "type=bind,src=/s,dst=/m,bind-recursive=x",
                "invalid value for bind-recursive: x (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")",
            ),
            (
                "type=bind,src=/s,dst=/m,bind-recursive=readonly,ro",
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction",
            ),
            (
                "type=volume,dst=/m,\"x",
                "parse error on line 1, column 22: extraneous or missing \" in quoted-field",
            ),
            (
                "type=volume,dst=/m,a\"b",
                "parse error on line 1, column 21: bare \" in non-quoted-field",
            ),
        ] {
            assert_eq!(mount(text).err().as_deref(), Some(said), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_record_survives_its_quotes(
            fields in proptest::collection::vec("[a-z=,\" é]{0,6}", 1..5),
            bare: bool,
        ) {
            prop_assume!(fields != [""]);
            let write = |field: &String| {
                let plain = !field.contains([',', '"']);
                if plain && bare { field.clone() } else { format!("\"{}\"", field.replace('"', "\"\"")) }
            };
            let line = fields.iter().map(write).collect::<Vec<_>>().join(",");
            prop_assert_eq!(record(&line).unwrap(), fields);
        }

        #[test]
        fn broken_mounts_are_refused(
            text in "(type=(bind|tmpfs|volume|x)?|,|target=/|src=[./a]|ro(=x)?|tmpfs-(size|mode)=[0-9kz]{0,9}|volume-opt=a=b|\"|[a-z=-]){0,8}",
        ) {
            if let Ok(mount) = mount(&text) {
                prop_assert!(!mount.target.is_empty() && !mount.kind.is_empty());
            }
        }
    }
}
