//! Configurations as somebody might get them wrong: each runs or is refused with one sentence, and
//! leaves nothing. `SEED=` repeats, `N=` sets how many.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::bundle::{Bundle, stderr};
use crate::robustness::remains;

/// What somebody might put in the place of a value. None leads out of the bundle.
fn odd(next: &mut impl FnMut(usize) -> usize) -> Value {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(i64::MIN),
        json!([]),
        json!({}),
        json!([[[]]]),
        json!({"a": {"b": []}}),
        json!(""),
        json!(".."),
        json!("rootfs"),
        json!("\0"),
        json!("\n"),
        json!("é"),
        json!("%s"),
        json!("x".repeat(5000)),
        json!("/nonexistent"),
        json!("rbind"),
        json!("user"),
        json!("cgroup"),
        json!("SCMP_ACT_ERRNO"),
        json!("rshared"),
        json!("size=1k"),
        json!(4_294_967_295_u32),
    ];
    values[next(values.len())].clone()
}

fn place<'a>(document: &'a mut Value, next: &mut impl FnMut(usize) -> usize) -> &'a mut Value {
    let length =
        document.as_array().map_or(0, Vec::len) + document.as_object().map_or(0, |map| map.len());
    if length == 0 || next(8) == 0 {
        return document;
    }
    let at = next(length);
    let inner = match document {
        Value::Array(list) => list.get_mut(at),
        Value::Object(map) => map.values_mut().nth(at),
        _ => None,
    };
    place(inner.expect("one of so many"), next)
}

fn damage(document: &mut Value, next: &mut impl FnMut(usize) -> usize) {
    let whole = document.clone();
    for _ in 0..=next(3) {
        let kind = next(5);
        let other = place(&mut whole.clone(), next).take();
        match (kind, place(document, next)) {
            (0, Value::Array(list)) if !list.is_empty() => list.push(list[0].clone()),
            (0 | 1, Value::Object(map)) if !map.is_empty() => {
                let name = map.keys().nth(next(map.len())).cloned().unwrap();
                map.remove(&name);
            }
            (2, place) => *place = other,
            (_, place) => *place = odd(next),
        }
    }
}

/// The groups of this host whose names have `id` in them.
fn groups(at: &Path, id: &str, depth: usize) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(at).into_iter().flatten().flatten();
    let directories = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let mut found = Vec::new();
    for path in directories.map(|entry| entry.path()) {
        if path.file_name().is_some_and(|name| name.to_string_lossy().contains(id)) {
            found.push(path);
        } else if depth > 0 {
            found.extend(groups(&path, id, depth - 1));
        }
    }
    found
}

#[test]
fn any_configuration_runs_or_is_refused_and_leaves_nothing() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (seed, rounds) = (number("SEED").unwrap_or(1), number("N").unwrap_or(60));
    let mut bundle = Bundle::new("true");
    bundle.id += "-hostile";
    bundle.linux()["cgroupsPath"] = json!(format!("/{}", bundle.id));
    bundle.add_mount(json!({
        "destination": "/a/b", "type": "bind", "source": "rootfs", "options": ["rbind", "ro", "rprivate"],
    }));
    bundle.linux()["sysctl"] = json!({"net.ipv4.ip_forward": "1"});
    bundle.linux()["rootfsPropagation"] = json!("rslave");
    bundle.linux()["resources"]["pids"] = json!({"limit": 50});
    bundle.linux()["devices"] = json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3}]);
    bundle.linux()["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1}],
    });
    assert!(bundle.run().status.success(), "{}", stderr(&bundle.run()));
    let whole = bundle.config.clone();
    let mut refused = 0;
    for round in 0..rounds {
        let mut state = seed.wrapping_add(round << 32);
        let mut next = |end: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % end
        };
        bundle.config = whole.clone();
        damage(&mut bundle.config, &mut next);
        // Whatever place it asks for, it is known as ours.
        let id = bundle.id.clone();
        if let Some(Value::String(path)) = bundle.config.pointer_mut("/linux/cgroupsPath") {
            *path += &id;
        }
        let mut bytes = serde_json::to_vec(&bundle.config).unwrap();
        if next(8) == 0 {
            bytes.truncate(next(bytes.len()));
        }
        let log = bundle.path().join("log.json");
        drop(std::fs::remove_file(&log));
        let directory = bundle.path().to_str().unwrap().to_owned();
        let inner = bundle.command(&[
            "--log",
            log.to_str().unwrap(),
            "--log-format",
            "json",
            "run",
            "--bundle",
            &directory,
            &bundle.id,
        ]);
        std::fs::write(bundle.path().join("config.json"), &bytes).unwrap();
        // Without namespaces of its own a container would change what is around it.
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--net", "--uts", "--ipc"])
            .arg(inner.get_program())
            .args(inner.get_args());
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let told =
            format!("SEED={seed} round {round}: {output:?} {}", String::from_utf8_lossy(&bytes));
        let errors: Vec<Value> = std::fs::read_to_string(&log)
            .unwrap_or_default()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .filter(|line: &Value| line["level"] == "error")
            .collect();
        match errors.as_slice() {
            [] => assert!(output.status.code().is_some_and(|code| code != 101), "{told}"),
            [error] => {
                refused += 1;
                assert_eq!(output.status.code(), Some(1), "{told}");
                let text = error["msg"].as_str().unwrap();
                assert!(!text.is_empty() && stderr(&output).contains(text), "{told}");
            }
            _ => panic!("{told}"),
        }
        assert_eq!(remains(&bundle), [""; 0], "{told}");
        let cgroups = groups(Path::new("/sys/fs/cgroup"), &bundle.id, 3);
        assert!(cgroups.is_empty(), "{cgroups:?}: {told}");
    }
    assert!(refused > 0 && refused < rounds, "{refused} of {rounds}");
}

#[test]
fn a_mount_whose_name_is_no_text_is_in_nobodys_way() {
    let bundle = Bundle::new("echo here");
    let point = bundle.path().join(OsStr::from_bytes(b"caf\xe9"));
    std::fs::create_dir(&point).unwrap();
    let directory = bundle.path().to_str().unwrap();
    for no_pivot in [&[][..], &["--no-pivot"]] {
        let mut arguments = vec!["run", "--bundle", directory];
        arguments.extend(no_pivot);
        arguments.push(&bundle.id);
        let inner = bundle.command(&arguments);
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs tmpfs \"$0\" && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script]).arg(&point);
        let output = command.arg(inner.get_program()).args(inner.get_args()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(text, "here\n", "{no_pivot:?}: {}", stderr(&output));
    }
}
