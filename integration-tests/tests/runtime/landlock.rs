//! Landlock rules by the annotation `docker-rs.landlock`, which other runtimes do not know.
//!
//! Where the kernel has no Landlock, or an older one, the same tests assert that it is told.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Output;
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, stderr};
use crate::robustness::without;

/// Of the kernel: its list of modules says whether, its release which. 0: none.
fn abi() -> u32 {
    static ABI: OnceLock<u32> = OnceLock::new();
    *ABI.get_or_init(|| {
        let mut bundle = Bundle::new("cat /modules/lsm");
        bundle.add_mount(json!({
            "destination": "/modules", "type": "securityfs", "source": "securityfs",
        }));
        if !bundle.output().split(',').any(|name| name == "landlock") {
            return 0;
        }
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap());
        let release = (numbers.next().unwrap(), numbers.next().unwrap());
        let since = [(5, 13), (5, 19), (6, 2), (6, 7), (6, 10), (6, 12)];
        u32::try_from(since.iter().filter(|first| **first <= release).count()).unwrap()
    })
}

/// A container of that script with rules of which the newest needs `needs`. `None` where the kernel has
/// less, which was told.
fn fenced(script: &str, rules: &Value, needs: u32) -> Option<Bundle> {
    let mut bundle = Bundle::new(script);
    bundle.config["annotations"] = json!({"docker-rs.landlock": rules.to_string()});
    if abi() >= needs {
        return Some(bundle);
    }
    let output = bundle.run();
    let text = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let told = match abi() {
        0 => "no Landlock in this kernel: ".to_owned(),
        old => format!(" needs Landlock ABI {needs}, this kernel has {old}"),
    };
    assert!(text.contains(&told), "{text}");
    None
}

/// All that writes is handled, and allowed below `/tmp`; what else is handled is for the caller.
fn writing(more: &Value) -> Value {
    let mut handled = vec!["write_file", "make_reg", "make_dir", "remove_file"];
    let allowed = handled.clone();
    handled.extend(more.as_array().unwrap().iter().map(|name| name.as_str().unwrap()));
    json!({
        "ruleset": {"handledAccessFS": handled},
        "rules": {"pathBeneath": [
            {"allowedAccess": allowed, "paths": ["/tmp"]},
            {"allowedAccess": ["write_file"], "paths": ["/dev/null"]},
        ]},
    })
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Reads here and there, and writes.
const SCRIPT: &str = "cat /file; echo x >/tmp/a && cat /tmp/a; mkdir /tmp/d && echo made; \
                      echo x >/file; mkdir /d; echo x >/new; cat /file";

fn with_file(bundle: &Bundle) {
    fs::write(bundle.rootfs().join("file"), "as it was\n").unwrap();
}

#[test]
fn writing_is_allowed_below_a_path_and_reading_everywhere() {
    if !ours_only() {
        return;
    }
    // With no_new_privs, with CAP_SYS_ADMIN alone, and for a user who has neither by then.
    for (new_privileges, uid) in [(false, 0), (true, 0), (true, 5)] {
        let Some(mut bundle) = fenced(SCRIPT, &writing(&json!([])), 1) else { continue };
        with_file(&bundle);
        bundle.process()["noNewPrivileges"] = json!(!new_privileges);
        bundle.process()["user"] = json!({"uid": uid, "gid": 0});
        use std::os::unix::fs::PermissionsExt as _;
        for name in ["", "tmp", "file"] {
            let mode = fs::Permissions::from_mode(0o777);
            fs::set_permissions(bundle.rootfs().join(name), mode).unwrap();
        }
        fs::set_permissions(bundle.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let output = bundle.run();
        let text = stderr(&output);
        assert_eq!(out(&output), "as it was\nx\nmade\nas it was\n", "{text}");
        assert_eq!(text.matches("Permission denied").count(), 3, "{text}");
        assert!(!bundle.rootfs().join("new").exists() && !bundle.rootfs().join("d").exists());
    }
}

#[test]
fn without_the_annotation_nothing_is_denied() {
    let bundle = Bundle::new(SCRIPT);
    with_file(&bundle);
    assert_eq!(bundle.output(), "as it was\nx\nmade\nx\n");
}

#[test]
fn an_exec_is_bound_too() {
    if !ours_only() {
        return;
    }
    let Some(mut bundle) = fenced("sleep 100", &writing(&json!(["read_dir"])), 1) else { return };
    with_file(&bundle);
    bundle.start();
    let exec = |bundle: &Bundle, flags: &[&str]| {
        let script = ["sh", "-c", "cat /file; echo x >/tmp/a && echo made; echo x >/file; ls /"];
        bundle.call(&[["exec"].as_slice(), flags, &[&bundle.id], &script].concat())
    };
    for flags in [[].as_slice(), &["--user", "0:7"], &["--cwd", "/tmp"]] {
        let output = exec(&bundle, flags);
        let text = stderr(&output);
        assert_eq!(out(&output), "as it was\nmade\n", "{flags:?} {text}");
        assert_eq!(text.to_lowercase().matches("permission denied").count(), 2, "{text}");
    }
    // The rules are the container's, whatever its bundle and the process's description say by now.
    bundle.config["annotations"] = json!({});
    let mut process = bundle.config["process"].clone();
    process["args"] = json!(["sh", "-c", "echo x >/file"]);
    let path = bundle.path().join("process.json");
    fs::write(&path, process.to_string()).unwrap();
    let output = bundle.call(&["exec", "--process", path.to_str().unwrap(), &bundle.id]);
    assert!(stderr(&output).to_lowercase().contains("permission denied"), "{}", stderr(&output));
}

#[test]
fn a_filter_that_forbids_the_calls_comes_after_the_rules() {
    if !ours_only() {
        return;
    }
    let Some(mut bundle) = fenced(SCRIPT, &writing(&json!([])), 1) else { return };
    with_file(&bundle);
    let calls = ["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"];
    bundle.linux()["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": calls, "action": "SCMP_ACT_KILL_PROCESS"}],
    });
    for no_new_privileges in [true, false] {
        bundle.process()["noNewPrivileges"] = json!(no_new_privileges);
        let text = out(&bundle.run());
        assert!(text.starts_with("as it was\nx\n") && text.ends_with("as it was\n"), "{text}");
        fs::remove_dir(bundle.rootfs().join("tmp/d")).unwrap();
    }
}

#[test]
fn ports_are_bound_and_reached_by_number() {
    if !ours_only() {
        return;
    }
    let rules = json!({
        "ruleset": {"handledAccessNet": ["bind_tcp", "connect_tcp"]},
        "rules": {"netPort": [
            {"allowedAccess": ["bind_tcp"], "port": [80, 82]},
            {"allowedAccess": ["connect_tcp"], "port": [80]},
        ]},
    });
    let script = "for port in 80 81 82; do httpd -p 127.0.0.1:$port -h /tmp && echo bound $port; done; \
                  for port in 80 82; do nc 127.0.0.1 $port </dev/null && echo reached $port; done; true";
    let Some(bundle) = fenced(script, &rules, 4) else { return };
    for applet in ["httpd", "nc"] {
        symlink("busybox", bundle.rootfs().join("bin").join(applet)).unwrap();
    }
    let output = bundle.run();
    let text = stderr(&output);
    assert_eq!(out(&output), "bound 80\nbound 82\nreached 80\n", "{text}");
    assert_eq!(text.matches("Permission denied").count(), 2, "{text}");
}

#[test]
fn signals_stay_within_their_scope() {
    if !ours_only() {
        return;
    }
    let rules = json!({"ruleset": {"scoped": ["signal"]}});
    let Some(bundle) = fenced("sleep 100 & kill $! && echo own; sleep 100", &rules, 6) else {
        return;
    };
    bundle.start();
    let output =
        bundle.call(&["exec", &bundle.id, "sh", "-c", "kill -0 $$ && echo own; kill -0 1"]);
    assert_eq!(out(&output), "own\n");
    assert!(stderr(&output).contains("not permitted"), "{}", stderr(&output));
    // Who is outside has the reach it had.
    let pid = bundle.pid();
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_gone(pid);
}

/// A link of the image's leads nowhere but into the image.
#[test]
fn a_hostile_link_reaches_nothing_of_the_host() {
    if !ours_only() {
        return;
    }
    let victim = tempfile::tempdir().unwrap();
    let outside = victim.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "host\n").unwrap();
    let climbing = format!("../../../../../../../..{}", outside.display());
    for target in [outside.to_str().unwrap(), &climbing] {
        let rules = json!({
            "ruleset": {"handledAccessFS": ["write_file"]},
            "rules": {"pathBeneath": [{"allowedAccess": ["write_file"], "paths": ["/data"]}]},
        });
        let Some(mut bundle) = fenced("echo x >/host/file; echo x >/data/file", &rules, 1) else {
            return;
        };
        symlink(target, bundle.rootfs().join("data")).unwrap();
        bundle.add_mount(json!({
            "destination": "/host", "type": "bind", "source": outside, "options": ["bind"],
        }));
        let output = bundle.run();
        let words = "landlock: /data: no such file or directory";
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
        // Inside there is a place of that name: the rule is for it, and the host's stays closed.
        let inside = bundle.rootfs().join(outside.strip_prefix("/").unwrap());
        fs::create_dir_all(&inside).unwrap();
        let output = bundle.run();
        assert!(stderr(&output).contains("/host/file: Permission denied"), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(inside.join("file")).unwrap(), "x\n");
    }
    assert_eq!(fs::read_to_string(outside.join("file")).unwrap(), "host\n");
}

/// The links of procfs lead out of every root.
#[test]
fn a_link_of_procfs_is_no_path_of_a_rule() {
    if !ours_only() {
        return;
    }
    let mut rules = writing(&json!([]));
    rules["rules"]["pathBeneath"][0]["paths"] = json!(["/proc/self/root/tmp"]);
    let Some(bundle) = fenced("true", &rules, 1) else { return };
    let output = bundle.run();
    assert_eq!(output.status.code(), Some(1));
    let words = "landlock: /proc/self/root/tmp: too many levels of symbolic links";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
}

#[test]
fn what_cannot_be_meant_is_one_sentence_and_nothing_is_left() {
    if !ours_only() {
        return;
    }
    let change = |at: &str, value: Value| {
        let mut rules = writing(&json!([]));
        *rules.pointer_mut(at).unwrap() = value;
        rules.to_string()
    };
    let paths = "/rules/pathBeneath/0/paths";
    for (rules, words, in_the_kernel) in [
        (
            change("/ruleset/handledAccessFS", json!(["write"])),
            "annotation docker-rs.landlock: unknown access \"write\" in handledAccessFS",
            false,
        ),
        ("{".to_owned(), "annotation docker-rs.landlock: EOF while parsing", false),
        (change(paths, json!(["tmp"])), "path \"tmp\" is not absolute", false),
        (change(paths, json!(["/missing"])), "landlock: /missing: no such file or directory", true),
        (change(paths, json!(["/bin/sh"])), "of /bin/sh: not a directory", true),
    ] {
        let mut bundle = Bundle::new("echo ran");
        bundle.config["annotations"] = json!({"docker-rs.landlock": rules});
        let output = bundle.run();
        let text = stderr(&output).replace('\\', "");
        let words = if in_the_kernel && abi() == 0 { "no Landlock in this kernel" } else { words };
        assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), ""), "{text}");
        assert!(text.contains(words) && text.trim_end().lines().count() == 1, "{text}");
        assert!(!bundle.root().join(&bundle.id).exists());
    }
}

#[test]
fn a_kernel_without_it_is_an_error_or_told() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new(SCRIPT);
    with_file(&bundle);
    let path = bundle.path().to_str().unwrap().to_owned();
    let mut rules = writing(&json!(["truncate"]));
    bundle.config["annotations"] = json!({"docker-rs.landlock": rules.to_string()});
    let run = ["run", "--bundle", &path, &bundle.id.clone()];
    let output = without(&["landlock_create_ruleset"], &bundle, &run);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), ""));
    let words =
        "annotation docker-rs.landlock: no Landlock in this kernel: function not implemented";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));

    rules["disableBestEffort"] = json!(false);
    bundle.config["annotations"] = json!({"docker-rs.landlock": rules.to_string()});
    let output = without(&["landlock_create_ruleset"], &bundle, &run);
    assert_eq!(out(&output), "as it was\nx\nmade\nx\n", "{}", stderr(&output));
    let words = "this kernel does not restrict write_file, read_dir";
    let words = words.replace("read_dir", "remove_file, make_dir, make_reg, truncate");
    assert!(stderr(&output).contains(&words), "{}", stderr(&output));
}

#[test]
fn explain_names_the_rules() {
    if !ours_only() {
        return;
    }
    let Some(bundle) = fenced("true", &writing(&json!(["execute"])), 1) else { return };
    let text = bundle.ok(&["explain", bundle.path().to_str().unwrap()]);
    let lines: Vec<_> = text.lines().filter(|line| line.starts_with("landlock")).collect();
    let wanted = [
        "landlock     no execute,write_file,remove_file,make_dir,make_reg",
        "landlock     write_file,remove_file,make_dir,make_reg below /tmp",
        "landlock     write_file below /dev/null",
    ];
    assert_eq!(lines, wanted);
}

/// criu would bring it back without them.
#[test]
fn a_container_with_rules_is_not_checkpointed() {
    if !ours_only() {
        return;
    }
    let Some(bundle) = fenced("sleep 100", &writing(&json!([])), 1) else { return };
    bundle.start();
    let words = "not supported: checkpoint and restore of a container with Landlock rules";
    let images = bundle.path().join("images");
    let path = bundle.path().to_str().unwrap();
    for command in [
        ["checkpoint", "--image-path", images.to_str().unwrap(), &bundle.id].as_slice(),
        &["restore", "--image-path", images.to_str().unwrap(), "--bundle", path, "other"],
    ] {
        let output = bundle.call(command);
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
    assert_eq!(bundle.status(), "running");
}
