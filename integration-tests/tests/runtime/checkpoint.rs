//! checkpoint and restore beside a criu that only records; with the real one runc's own suite does it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, unified};
use crate::criu::{Answer, Criu, DUMP, FEATURES, Features, PRE_DUMP, Pair, RESTORE, good, notice};
use crate::holder::Holder;

/// A container that runs, and a criu that will end it.
fn running(change: impl FnOnce(&mut Bundle)) -> (Bundle, Criu) {
    let mut bundle = Bundle::new("sleep 100");
    change(&mut bundle);
    bundle.start();
    let criu = Criu::new();
    // Dead, whether somebody has seen it or not.
    let pid = bundle.pid();
    let end =
        format!("kill -9 {pid}; while grep -q '^State:.[^ZX]' /proc/{pid}/status; do :; done");
    criu.write(&format!("before.{DUMP}"), &end);
    (bundle, criu)
}

fn images(bundle: &Bundle) -> String {
    bundle.path().join("images").display().to_string()
}

fn pair(key: &str, value: &str) -> Pair {
    Pair { key: key.to_owned(), value: value.to_owned() }
}

fn checkpoint(bundle: &Bundle, criu: &Criu, flags: &[&str]) -> (Option<i32>, String) {
    let images = images(bundle);
    let mut arguments = vec!["checkpoint", "--image-path", &images];
    arguments.extend(flags);
    arguments.push(&bundle.id);
    criu.call(bundle, &arguments)
}

#[test]
fn a_dump_is_asked_for_as_runc_asks() {
    let (bundle, criu) = running(|bundle| {
        fs::create_dir_all(bundle.rootfs().join("real")).unwrap();
        std::os::unix::fs::symlink("/real", bundle.rootfs().join("link")).unwrap();
        bundle.add_mount(json!({
            "destination": "/link", "type": "bind", "source": bundle.path(), "options": ["bind"],
        }));
        bundle.linux()["maskedPaths"] = json!(["/proc/version", "/proc/no-such", "/sys/firmware"]);
    });
    let pid = bundle.pid();
    let work = bundle.path().join("work");
    let work = work.to_str().unwrap();
    let (code, text) = checkpoint(&bundle, &criu, &["--work-path", work]);
    assert_eq!(code, Some(0), "{text}");
    let options = criu.options(DUMP);
    assert_eq!((options.pid, options.root.as_str()), (pid, bundle.rootfs().to_str().unwrap()));
    assert!(options.images > 2 && options.work.unwrap() > 2, "{options:?}");
    assert_eq!((options.log_level, options.log_file.as_str()), (4, "dump.log"));
    assert!(options.notify && options.manage_cgroups && options.orphan_terminal);
    assert_eq!((options.cgroups_mode, options.empty_namespaces), (Some(6), 0x4000_0000));
    assert_eq!(options.configuration, "/etc/criu/runc.conf");
    assert!(options.freezer.ends_with(&bundle.id), "{}", options.freezer);
    let said = [
        options.leave_running,
        options.external_sockets,
        options.tcp_established,
        options.shell_job,
        options.file_locks,
        options.auto_dedup,
        options.link_remap,
        options.skip_in_flight,
        options.lazy,
        options.track_memory,
    ];
    assert_eq!(said, [false; 10]);
    assert!(options.external.is_empty() && options.page_server.is_none());
    let mut mounts = options.mounts;
    for expected in [
        pair("/real", "/real"),
        pair("/proc/version", "/dev/null"),
        pair("/dev/null", "/dev/null"),
        pair("/dev/urandom", "/dev/urandom"),
    ] {
        let place = mounts.iter().position(|mount| *mount == expected);
        let place = place.unwrap_or_else(|| panic!("{expected:?} of {mounts:?}"));
        mounts.remove(place);
    }
    // The other devices that every container has.
    assert!(mounts.iter().all(|mount| mount.key.starts_with("/dev/")), "{mounts:?}");
    let saved = fs::read(bundle.path().join("images/descriptors.json")).unwrap();
    let saved: Vec<String> = serde_json::from_slice(&saved).unwrap();
    assert_eq!(saved, ["/dev/null"; 3]);
    // What is in files need not be here.
    assert_eq!(bundle.call(&["state", &bundle.id]).status.code(), Some(1));
    assert!(!bundle.root().join(&bundle.id).exists());
}

#[test]
fn each_flag_is_an_option_of_the_request() {
    let (bundle, criu) = running(|bundle| {
        bundle.config["annotations"] = json!({"org.criu.config": "/own.conf"});
    });
    fs::create_dir(bundle.path().join("parent")).unwrap();
    let flags = [
        "--leave-running",
        "--tcp-established",
        "--tcp-skip-in-flight",
        "--link-remap",
        "--ext-unix-sk",
        "--shell-job",
        "--file-locks",
        "--auto-dedup",
        "--empty-ns",
        "network",
        "--manage-cgroups-mode",
        "strict",
        "--page-server",
        "10.0.0.1:1234",
        "--parent-path",
        "../parent",
    ];
    fs::remove_file(criu.path().join(format!("before.{DUMP}"))).unwrap();
    let (code, text) = checkpoint(&bundle, &criu, &flags);
    assert_eq!(code, Some(0), "{text}");
    let options = criu.options(DUMP);
    let said = [
        options.leave_running,
        options.external_sockets,
        options.tcp_established,
        options.shell_job,
        options.file_locks,
        options.auto_dedup,
        options.link_remap,
        options.skip_in_flight,
        options.track_memory,
    ];
    assert_eq!(said, [true; 9]);
    assert_eq!((options.cgroups_mode, options.parent.as_str()), (Some(5), "../parent"));
    let server = options.page_server.unwrap();
    assert_eq!((server.address.as_str(), server.port), ("10.0.0.1", 1234));
    assert_eq!(options.configuration, "/own.conf");
    assert_eq!((options.work, options.status), (None, None));
    assert_eq!(bundle.status(), "running");
}

#[test]
fn a_network_namespace_given_by_path_is_not_dumped() {
    let holder = Holder::network(|| ());
    let path = holder.namespace("net");
    let (bundle, criu) = running(|bundle| {
        for namespace in bundle.linux()["namespaces"].as_array_mut().unwrap() {
            if namespace["type"] == "network" {
                namespace["path"] = json!(path);
            }
        }
    });
    let (code, text) = checkpoint(&bundle, &criu, &[]);
    assert_eq!(code, Some(0), "{text}");
    let inode = fs::metadata(&path).unwrap().ino();
    assert_eq!(criu.options(DUMP).external, [format!("net[{inode}]:extRootNetNS")]);
    criu.restores("exec sleep 100");
    let (code, text) = restore(&bundle, &criu, &["--detach"]);
    assert_eq!(code, Some(0), "{text}");
    let inherited = criu.options(RESTORE).inherited;
    assert_eq!((inherited[0].key.as_str(), inherited[0].number), ("extRootNetNS", 4));
    bundle.ok(&["delete", "--force", &bundle.id]);
}

#[test]
fn the_memory_alone_can_be_dumped_first() {
    let (bundle, criu) = running(|_| {});
    let features = |memory| Answer {
        features: Some(Features { memory: Some(memory), lazy: None }),
        ..good(FEATURES)
    };
    criu.answer(FEATURES, &[features(false)]);
    let (code, text) = checkpoint(&bundle, &criu, &["--pre-dump"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("criu is missing features: [MemTrack]"), "{text}");
    assert_eq!(criu.asked(FEATURES).unwrap().features.unwrap().memory, Some(true));
    assert!(criu.asked(PRE_DUMP).is_none());
    criu.answer(FEATURES, &[features(true)]);
    // It waits for more, and is not pleased.
    criu.write("before.4", "echo 1 >exit");
    let (code, text) = checkpoint(&bundle, &criu, &["--pre-dump"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(criu.options(PRE_DUMP).mounts.is_empty());
    assert!(!Path::new(&images(&bundle)).join("descriptors.json").exists());
    assert_eq!(bundle.status(), "running");
}

#[test]
fn who_waits_for_lazy_pages_is_told_when_they_are_there() {
    let (bundle, criu) = running(|_| {});
    let features = Some(Features { memory: None, lazy: Some(true) });
    criu.answer(FEATURES, &[Answer { features, ..good(FEATURES) }]);
    criu.answer(DUMP, &[notice("status-ready"), good(DUMP)]);
    let ready = bundle.path().join("ready");
    // Low numbers are runc's own, and not every shell knows high ones.
    let (number, shell) = if ours_only() { ("7", "sh") } else { ("97", "bash") };
    let shell = |redirection: &str| {
        let command = bundle.command(&[
            "checkpoint",
            "--lazy-pages",
            "--status-fd",
            number,
            "--page-server",
            "127.0.0.1:1",
            "--image-path",
            &images(&bundle),
            &bundle.id,
        ]);
        let line = format!("exec \"$0\" \"$@\" {redirection}");
        let output = std::process::Command::new(shell)
            .args(["-c", &line])
            .arg(command.get_program())
            .args(command.get_args())
            .env("PATH", format!("{}:/usr/bin:/bin", criu.path().display()))
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (redirection, words) in
        [(String::new(), "bad file descriptor"), (format!("{number}</dev/null"), "not writable")]
    {
        let (code, text) = shell(&redirection);
        let words = format!("invalid --status-fd argument {number}: {words}");
        assert_eq!(code, Some(1));
        assert!(text.contains(&words), "{redirection}: {text}");
    }
    let (code, text) = shell(&format!("{number}>{}", ready.display()));
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(fs::read(&ready).unwrap(), [0]);
    let options = criu.options(DUMP);
    assert!(options.lazy && options.status.is_none());
}

#[test]
fn a_criu_that_fails_leaves_the_container_as_it_was() {
    let (bundle, criu) = running(|_| {});
    fs::remove_file(criu.path().join(format!("before.{DUMP}"))).unwrap();
    let log = Path::new(&images(&bundle)).join("dump.log");
    fs::create_dir(images(&bundle)).unwrap();
    fs::write(&log, "one\nError (x.c:1): no luck\n").unwrap();
    let failing = || checkpoint(&bundle, &criu, &[]);
    criu.answer(DUMP, &[Answer { kind: DUMP, errno: 5, ..Answer::default() }]);
    let (code, text) = failing();
    assert_eq!(code, Some(1));
    assert!(text.contains("criu failed: type DUMP errno 5"), "{text}");
    assert!(text.contains("2:Error (x.c:1): no luck"), "{text}");
    assert!(text.contains(log.to_str().unwrap()), "{text}");
    // Dies without an answer.
    fs::remove_file(criu.path().join(format!("{DUMP}.1"))).unwrap();
    criu.write("exit", "3");
    let (code, text) = failing();
    assert_eq!(code, Some(1));
    assert!(text.contains("exit status 3") || text.contains("connection reset by peer"), "{text}");
    // Ends well, says so, and does not mean it.
    criu.answer(DUMP, &[good(DUMP)]);
    let (code, text) = failing();
    assert_eq!(code, Some(1));
    assert!(text.contains("exit status 3"), "{text}");
    criu.write("exit", "0");
    for (answer, what) in [("garbage", "no message"), ("\u{8}\u{4}\u{10}\u{1}", "of another kind")]
    {
        criu.write(&format!("{DUMP}.1"), answer);
        if what == "of another kind" && !ours_only() {
            // runc takes any of the three for the answer.
            continue;
        }
        let (code, text) = failing();
        assert_eq!(code, Some(1), "{what}: {text}");
    }
    assert_eq!(bundle.status(), "running");
}

#[test]
fn without_criu_a_checkpoint_says_so() {
    let (bundle, criu) = running(|_| {});
    fs::rename(criu.path().join("criu"), criu.path().join("other")).unwrap();
    let (code, text) = checkpoint(&bundle, &criu, &[]);
    assert_eq!(code, Some(1));
    let words = "executable file not found in $PATH";
    assert!(text.contains("CRIU version check failed: ") && text.contains(words), "{text}");
    assert_eq!(bundle.status(), "running");
    fs::rename(criu.path().join("other"), criu.path().join("criu")).unwrap();
    let mut old = good(10);
    old.version = Some(crate::criu::Version { major: 2, minor: 9 });
    criu.answer(10, &[old]);
    let (code, text) = checkpoint(&bundle, &criu, &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("CRIU version 20900 must be 30000 or higher"), "{text}");
}

#[test]
fn what_cannot_be_meant_is_told_before_criu_is_asked() {
    let (bundle, criu) = running(|_| {});
    for (flags, words) in [
        (vec!["--parent-path", "/a"], "--parent-path must be relative"),
        (vec!["--parent-path", "no-such"], "invalid --parent-path"),
        (vec!["--page-server", "x"], "Use --page-server ADDRESS:PORT to specify page server"),
        (vec!["--page-server", "x:y"], "Invalid port number"),
        (vec!["--empty-ns", "pid"], "namespace \\\"pid\\\" is not supported"),
        (vec!["--manage-cgroups-mode", "x"], "invalid manage-cgroups-mode value"),
    ] {
        let (code, text) = checkpoint(&bundle, &criu, &flags);
        assert_eq!(code, Some(1), "{flags:?}");
        assert!(text.contains(words), "{flags:?}: {text}");
    }
    assert!(criu.asked(DUMP).is_none());
    let created = Bundle::new("true");
    created.detached(&["create", "--bundle", created.path().to_str().unwrap(), &created.id]);
    let (code, text) = checkpoint(&created, &criu, &[]);
    assert_eq!(code, Some(1));
    assert!(text.contains("Container cannot be checkpointed in created state"), "{text}");
}

fn restore(bundle: &Bundle, criu: &Criu, flags: &[&str]) -> (Option<i32>, String) {
    let (images, path) = (images(bundle), bundle.path().to_str().unwrap().to_owned());
    let mut arguments = vec!["restore", "--image-path", &images, "--bundle", &path];
    arguments.extend(flags);
    arguments.push(&bundle.id);
    criu.call(bundle, &arguments)
}

/// A bundle with what a dump has left, and a criu that brings `program` back.
fn dumped(program: &str) -> (Bundle, Criu) {
    let bundle = Bundle::new("never run");
    fs::create_dir(images(&bundle)).unwrap();
    let descriptors = json!(["pipe:[11]", "/dev/null", "pipe:[13]"]);
    let path = Path::new(&images(&bundle)).join("descriptors.json");
    fs::write(path, descriptors.to_string()).unwrap();
    let criu = Criu::new();
    criu.restores(program);
    (bundle, criu)
}

#[test]
fn a_restore_is_asked_for_as_runc_asks_and_gives_a_running_container() {
    let (mut bundle, criu) = dumped("exec sleep 100");
    let told = bundle.path().join("told");
    let hook = |kind: &str| {
        let script = format!("cat >{}; echo {kind}", told.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    bundle.config["hooks"] = json!({"createRuntime": hook("createRuntime")});
    let shared = bundle.path().join("shared");
    fs::create_dir(&shared).unwrap();
    bundle.add_mount(json!({
        "destination": "/data/here", "type": "bind", "source": shared, "options": ["bind"],
    }));
    bundle.add_mount(json!({
        "destination": "/data/here/deep", "type": "bind", "source": shared, "options": ["bind"],
    }));
    bundle.linux()["resources"]["pids"] = json!({"limit": 31});
    let pid_file = bundle.path().join("pid");
    let flags = [
        "--detach",
        "--pid-file",
        pid_file.to_str().unwrap(),
        "--shell-job",
        "--lsm-profile",
        "selinux:x",
        "--lsm-mount-context",
        "y",
    ];
    let (code, text) = restore(&bundle, &criu, &flags);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(bundle.status(), "running");
    let pid = bundle.pid();
    assert_eq!(fs::read_to_string(&pid_file).unwrap(), pid.to_string());
    let command = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
    assert_eq!(command, "sleep\x00100\x00");
    let options = criu.options(RESTORE);
    assert!(options.sibling && options.evasive_devices && options.orphan_terminal);
    assert!(options.notify && options.shell_job && !options.tcp_established);
    assert_eq!(options.log_file, "restore.log");
    assert!(options.root.ends_with("/criu-root"), "{}", options.root);
    assert_eq!((options.profile.as_str(), options.mount_context.as_str()), ("selinux:x", "y"));
    assert!(options.mounts.contains(&pair("/data/here", shared.to_str().unwrap())));
    assert!(options.mounts.contains(&pair("/dev/null", "/dev/null")), "{:?}", options.mounts);
    let pipes: Vec<_> =
        options.inherited.iter().map(|one| (one.key.as_str(), one.number)).collect();
    assert_eq!(pipes, [("pipe:[11]", 0), ("pipe:[13]", 2)]);
    // It was in the container's cgroups when it was asked, and was told where that is.
    assert!(criu.read("cgroup.2").contains(&bundle.id), "{}", criu.read("cgroup.2"));
    assert!(options.cgroups.iter().any(|one| one.value.ends_with(&bundle.id)));
    let limit = if unified() { "" } else { "pids/" };
    let limit = format!("/sys/fs/cgroup/{limit}{}/pids.max", bundle.id);
    assert_eq!(fs::read_to_string(limit).unwrap(), "31\n");
    let state: Value = serde_json::from_slice(&fs::read(&told).unwrap()).unwrap();
    assert_eq!((&state["id"], &state["pid"]), (&json!(bundle.id), &json!(1)));
    // Places to mount on are there, below the bind that brings them too.
    assert!(bundle.rootfs().join("data/here").is_dir() && shared.join("deep").is_dir());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.path().to_str().unwrap()), "{mounts}");
    assert!(!Path::new(&options.root).exists());
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    bundle.wait_gone(pid);
    bundle.ok(&["delete", &bundle.id]);
}

/// On cgroup2 criu mounts there, which it can only in a mount namespace that is its own.
#[test]
fn where_criu_works_can_be_mounted_on() {
    for work in [None, Some("work")] {
        let (bundle, criu) = dumped("exec sleep 100");
        criu.write(
            "before.2",
            "# By the path as it stands; busybox goes by no other.
             as_it_is() { call=$1; shift; $call -c \"$@\" 2>/dev/null || busybox $call \"$@\" 2>/dev/null; }
             for fd in /proc/$PPID/fd/*; do
               case $(readlink $fd) in */images | */work) ;; *) continue ;; esac
               mkdir -p $fd/yard
               if as_it_is mount -t tmpfs none $fd/yard; then echo ${fd##*/}; as_it_is umount $fd/yard; fi
             done >mountable\n",
        );
        let work = work.map(|name| bundle.path().join(name).to_str().unwrap().to_owned());
        let mut flags = vec!["--detach"];
        flags.extend(work.iter().flat_map(|path| ["--work-path", path]));
        let (code, text) = restore(&bundle, &criu, &flags);
        assert_eq!(code, Some(0), "{text}");
        let options = criu.options(RESTORE);
        let place = options.work.unwrap_or(options.images).to_string();
        let mountable = criu.read("mountable");
        assert!(mountable.lines().any(|fd| fd == place), "{place} in {mountable}");
        let log = Path::new(work.as_deref().unwrap_or(&images(&bundle))).join("yard");
        assert!(log.is_dir(), "{}", log.display());
        bundle.ok(&["delete", "--force", &bundle.id]);
    }
}

#[test]
fn a_restore_in_the_foreground_ends_with_the_container() {
    if !ours_only() {
        // runc waits for a child of its own, which a script cannot give it.
        return;
    }
    // Ends once criu has: until then its other end of the pipe is open.
    let (bundle, criu) = dumped("exec 9<ends 8>&-; cat <&9; exit 7");
    criu.write("before.2", "mkfifo ends; exec 8<>ends");
    let (code, text) = restore(&bundle, &criu, &[]);
    assert_eq!(code, Some(7), "{text}");
    assert!(!bundle.root().join(&bundle.id).exists());
}

#[test]
fn a_restore_that_fails_leaves_nothing() {
    let (bundle, criu) = dumped("exec sleep 100");
    let left = || {
        let cgroup = Path::new("/sys/fs/cgroup");
        let places = [cgroup.join(&bundle.id), cgroup.join("pids").join(&bundle.id)];
        bundle.root().join(&bundle.id).exists() || places.iter().any(|place| place.exists())
    };
    fs::remove_file(criu.path().join("program")).unwrap();
    let log = Path::new(&images(&bundle)).join("restore.log");
    fs::write(&log, "Error: it broke\n").unwrap();
    let failure = Answer { kind: RESTORE, errno: 2, ..Answer::default() };
    criu.answer(RESTORE, &[notice("setup-namespaces"), failure]);
    let (code, text) = restore(&bundle, &criu, &["--detach"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("criu failed: type RESTORE errno 2"), "{text}");
    assert!(text.contains("1:Error: it broke"), "{text}");
    assert!(!left());
    fs::remove_file(Path::new(&images(&bundle)).join("descriptors.json")).unwrap();
    let (code, text) = restore(&bundle, &criu, &["--detach"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("descriptors.json: no such file or directory"), "{text}");
    assert!(!left());
    fs::remove_file(criu.path().join("criu")).unwrap();
    let (code, text) = restore(&bundle, &criu, &["--detach"]);
    assert_eq!(code, Some(1));
    assert!(text.contains("CRIU version check failed"), "{text}");
    assert!(!left());
}
