//! More rows of the red-team table, see `red_team`: an image, a configuration or a command line that
//! wants out, and a directory of the host as the judge.

use std::fs;
use std::os::unix::fs::symlink;

use integration_tests::terminal::Terminal;
use serde_json::{Value, json};

use crate::bundle::{Bundle, stderr};
use crate::victim::Victim;

/// Takes `/dev` and what is below it from the image.
fn without_dev(bundle: &mut Bundle) {
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
}

fn bind(source: &std::path::Path, destination: &str) -> Value {
    json!({"destination": destination, "type": "bind", "source": source, "options": ["rbind", "rw"]})
}

/// CVE-2025-52881, CVE-2023-27561: what is written to `/proc` goes to a procfs.
#[test]
fn a_sysctl_is_not_written_into_the_images_proc() {
    let mut bundle = Bundle::new("cat /real/sys/net/ipv4/ip_unprivileged_port_start");
    let victim = Victim::new(bundle.path());
    bundle.config["mounts"] = json!([
        {"destination": "/real", "type": "proc", "source": "proc"},
        bind(victim.path(), "/victim"),
    ]);
    let fake = bundle.rootfs().join("proc/sys/net/ipv4");
    fs::create_dir_all(&fake).unwrap();
    symlink("/victim/file", fake.join("ip_unprivileged_port_start")).unwrap();
    bundle.linux()["sysctl"] = json!({"net.ipv4.ip_unprivileged_port_start": "77"});
    bundle.linux()["maskedPaths"] = json!([]);
    bundle.linux()["readonlyPaths"] = json!([]);
    let output = bundle.run();
    victim.is_unharmed(&stderr(&output));
    if output.status.success() {
        assert_eq!(output.stdout, b"77\n");
    }
}

/// CVE-2025-31133: the masked file is where the container writes.
#[test]
fn a_false_null_device_gives_nothing_to_write_to() {
    let mut bundle = Bundle::new("echo harm > /masked");
    let victim = Victim::new(bundle.path());
    without_dev(&mut bundle);
    bundle.add_mount(bind(victim.path(), "/volume"));
    fs::write(bundle.rootfs().join("masked"), "").unwrap();
    fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    symlink("/volume/file", bundle.rootfs().join("dev/null")).unwrap();
    bundle.linux()["maskedPaths"] = json!(["/masked"]);
    bundle.linux()["readonlyPaths"] = json!(["/volume"]);
    let output = bundle.run();
    victim.is_unharmed(&stderr(&output));
}

/// CVE-2025-52565: a terminal's places in an image of the attacker's.
#[test]
fn a_false_console_is_not_made_into_a_terminal() {
    let terminal = |link: Option<(&str, &str)>| {
        let mut bundle = Bundle::new("echo harm > /dev/console; echo ran");
        let victim = Victim::new(bundle.path());
        let mounts = bundle.config["mounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["destination"] != "/dev");
        if link.is_some_and(|(name, _)| name == "pts") {
            mounts.retain(|mount| mount["destination"] != "/dev/pts");
        }
        bundle.add_mount(bind(victim.path(), "/volume"));
        fs::create_dir(bundle.rootfs().join("dev")).unwrap();
        if let Some((name, target)) = link {
            let target = target.replace("HOST", victim.path().to_str().unwrap());
            symlink(target, bundle.rootfs().join("dev").join(name)).unwrap();
        }
        bundle.process()["terminal"] = json!(true);
        let directory = bundle.path().to_str().unwrap();
        let run = bundle.command(&["run", "--bundle", directory, &bundle.id]);
        let (text, code) = Terminal::of(&run, 24, 80).until_end();
        victim.is_unharmed(&format!("{link:?}"));
        (text, code)
    };
    let (text, code) = terminal(None);
    assert!(code == 0 && text.ends_with("ran\r\n"), "{text}");
    for link in [
        ("console", "/volume/file"),
        ("console", "/volume/new"),
        ("console", "HOST/file"),
        ("console", "HOST/new"),
        ("ptmx", "/volume/file"),
        ("pts", "/volume"),
    ] {
        drop(terminal(Some(link)));
    }
}

/// CVE-2026-41579, CVE-2026-47766: the nodes go where `/dev` points, or where a directory of it does.
#[test]
fn a_directory_of_dev_that_is_a_link_to_the_host_gets_no_device() {
    let mut bundle = Bundle::new("true");
    let victim = Victim::new(bundle.path());
    without_dev(&mut bundle);
    fs::create_dir(bundle.rootfs().join("dev")).unwrap();
    symlink(victim.path(), bundle.rootfs().join("dev/net")).unwrap();
    bundle.linux()["devices"] =
        json!([{"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200}]);
    let output = bundle.run();
    victim.is_unharmed(&stderr(&output));
}

/// CVE-2025-24965: a file that is made for a mount.
#[test]
fn a_mount_point_that_is_made_is_made_inside() {
    for link in ["new", "file", "directory/new", "../new"] {
        let mut bundle = Bundle::new("true");
        let victim = Victim::new(bundle.path());
        symlink(victim.path().join(link), bundle.rootfs().join("link")).unwrap();
        let source = bundle.path().join("source");
        fs::write(&source, "mounted\n").unwrap();
        bundle.add_mount(bind(&source, "/link"));
        let output = bundle.run();
        victim.is_unharmed(&stderr(&output));
        assert!(!bundle.path().join("new").exists(), "{link}");
    }
}

/// CVE-2024-21626, by `exec` and from a caller that left a directory open.
#[test]
fn an_exec_does_not_start_behind_a_descriptor() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    for number in 0..16 {
        let cwd = format!("/proc/self/fd/{number}");
        let exec = bundle.command(&["exec", "--cwd", &cwd, &bundle.id, "ls"]);
        let mut careless = std::process::Command::new("sh");
        careless.args(["-c", "exec 3</etc 4</ 5</ 6</ 7</etc 8</ 9</; exec \"$@\"", "sh"]);
        careless.arg(exec.get_program()).args(exec.get_args());
        let output = careless.stdin(fs::File::open("/etc").unwrap()).output().unwrap();
        let shown = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!((output.status.success(), shown.as_str()), (false, ""), "{cwd}");
    }
}

/// CVE-2022-29162, CVE-2022-27650, CVE-2025-27612.
#[test]
fn no_capability_is_inheritable_unless_the_configuration_says_so() {
    let bundle = Bundle::new("grep CapInh /proc/self/status; sleep 100");
    let out = bundle.path().join("out");
    let run = ["run", "-d", "-b", bundle.path().to_str().unwrap(), &bundle.id];
    let file = fs::File::create_new(&out).unwrap();
    assert!(bundle.command(&run).stdout(file).status().unwrap().success());
    let exec = ["exec", "--cap", "CAP_NET_RAW", "--cap", "CAP_SYS_ADMIN", &bundle.id];
    let grep = ["grep", "CapInh", "/proc/self/status"];
    let none = "CapInh:\t0000000000000000\n";
    assert_eq!(bundle.ok(&[exec.as_slice(), &grep].concat()), none);
    // Its first process began before.
    assert_eq!(fs::read_to_string(&out).unwrap(), none);
}

/// CVE-2023-25809: what belongs to the host is not writable, as root of a user namespace neither.
#[test]
fn a_container_writes_to_nothing_below_sys() {
    let script = "for f in /sys/fs/cgroup/*/cgroup.procs /sys/fs/cgroup/*/*.max /sys/fs/cgroup/*.* \
                  /sys/kernel/* /sys/kernel/*/* /sys/fs/cgroup/*/notify_on_release; do \
                  if [ -f $f ] && (: >> $f) 2>/dev/null; then echo $f; fi; done; \
                  mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x; echo done";
    for user_namespace in [false, true] {
        let mut bundle = Bundle::new(script);
        if user_namespace {
            bundle.use_user_namespace();
        }
        bundle.add_mount(json!({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        }));
        let output = bundle.run();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        // runc 1.1 leaves the tmpfs above the hierarchies writable; nothing of the host's is in it.
        assert_eq!(text, "done\n", "{}", stderr(&output));
    }
}

/// CVE-2021-43784: a field too large for its place must not push others out.
#[test]
fn mappings_that_do_not_fit_are_an_error() {
    let mut bundle = Bundle::new("id -u");
    bundle.use_user_namespace();
    // As text more than 65,535 bytes, the last of them everything.
    let mut mappings: Vec<Value> = (0..4200)
        .map(|n| json!({"containerID": 100_000 + n, "hostID": 300_000 + n, "size": 1}))
        .collect();
    mappings.push(json!({"containerID": 0, "hostID": 0, "size": 1}));
    bundle.linux()["gidMappings"] = Value::Array(mappings);
    let output = bundle.run();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), b"".as_slice()));
}

/// CVE-2026-30892: the exact user, or an error.
#[test]
fn a_user_is_exactly_who_was_named() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    for (user, wanted) in [("1", "1 0"), ("1:1", "1 1"), ("0:7", "0 7"), ("1000:0", "1000 0")] {
        let exec = ["exec", "--user", user, &bundle.id, "sh", "-c", "echo $(id -u) $(id -g)"];
        assert_eq!(bundle.ok(&exec).trim_end(), wanted, "{user:?}");
    }
    for user in
        [":", "0:", ":0", "+1", " 1", "1 ", "1:1:1", "4294967295", "4294967296", "-1", "0x1"]
    {
        let output = bundle.call(&["exec", "--user", user, &bundle.id, "id", "-u"]);
        assert!(!output.status.success(), "{user:?}: {:?}", String::from_utf8(output.stdout));
    }
}

/// An id is a name, and so is a group: both become directories.
#[test]
fn ids_and_groups_stay_where_they_belong() {
    let mut bundle = Bundle::new("true");
    let victim = Victim::new(bundle.path());
    let directory = bundle.path().to_str().unwrap().to_owned();
    for id in ["../victim/x", "..", ".", "a/b", "/tmp/x", "a\nb", ""] {
        let output = bundle.call(&["create", "--bundle", &directory, id]);
        assert_eq!(output.status.code(), Some(1), "{id:?}");
        let output = bundle.call(&["delete", "--force", id]);
        assert_eq!(output.status.code(), Some(1), "{id:?}");
        victim.is_unharmed(id);
    }
    // Up is nowhere: the way is cut off at the hierarchy's root.
    let inside = format!("/../../../../{}", bundle.id);
    bundle.linux()["cgroupsPath"] = json!(inside);
    assert_eq!(bundle.run().status.code(), Some(0));
    bundle.process()["args"] = json!(["sleep", "100"]);
    bundle.start();
    for group in ["..", "../..", "a/../../..", "memory:../x", "../victim"] {
        let output = bundle.call(&["exec", "--cgroup", group, &bundle.id, "true"]);
        assert!(!output.status.success(), "{group}");
    }
}
