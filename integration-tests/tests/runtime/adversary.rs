//! Whoever acts at the wrong moment, or was left something that is not its own: races between
//! commands, descriptors that wander, names that lead elsewhere.

use std::fs;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bundle::{Bundle, binary, ours_only, stderr};

/// A hook that tells when it runs, and goes on when it is told to.
struct Gate {
    ready: PathBuf,
    go: PathBuf,
}

impl Gate {
    fn new(directory: &Path) -> Self {
        let (ready, go) = (directory.join("ready"), directory.join("go"));
        for path in [&ready, &go] {
            assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
        }
        Self { ready, go }
    }

    fn hook(&self) -> Value {
        let script = format!("echo > {}; read word < {}", self.ready.display(), self.go.display());
        json!({"path": "/bin/sh", "args": ["sh", "-c", script]})
    }

    fn wait(&self) {
        assert_eq!(fs::read_to_string(&self.ready).unwrap(), "\n");
    }

    fn open(&self) {
        fs::write(&self.go, "go\n").unwrap();
    }
}

/// A failed test lets the hook go too.
impl Drop for Gate {
    fn drop(&mut self) {
        // Open for both, it waits for nobody.
        let both = fs::OpenOptions::new().read(true).write(true).open(&self.go);
        drop(both.and_then(|mut both| both.write_all(b"go\n").map(|()| both)));
    }
}

fn spawn_create(bundle: &Bundle) -> Child {
    let directory = bundle.path().to_str().unwrap();
    let mut command = bundle.command(&["create", "--bundle", directory, &bundle.id]);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// The command must end by itself in time: a hang is what is looked for. Files take its output, which
/// a process it leaves behind cannot hold open.
fn ends(mut command: Command) -> Output {
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap());
    let mut child = command.spawn().unwrap();
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
    let mut fds = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let patience = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    let ended = rustix::event::poll(&mut fds, Some(&patience)).unwrap();
    if ended == 0 {
        child.kill().unwrap();
    }
    let status = child.wait().unwrap();
    assert_eq!(ended, 1, "hangs: {command:?}");
    let read = |file: &mut fs::File| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    };
    Output { status, stdout: read(&mut out), stderr: read(&mut err) }
}

/// Before its root is its own, a container's mount namespace still shows the host.
#[test]
fn a_container_that_is_being_made_cannot_be_entered() {
    let mut bundle = Bundle::new("sleep 100");
    let gate = Gate::new(bundle.path());
    bundle.config["hooks"]["createRuntime"] = json!([gate.hook()]);
    let mut create = spawn_create(&bundle);
    gate.wait();
    let of_the_host = bundle.path().join("config.json");
    let output =
        ends(bundle.command(&["exec", &bundle.id, "/bin/cat", of_the_host.to_str().unwrap()]));
    gate.open();
    assert!(create.wait().unwrap().success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(output.status.code(), Some(255), "{}", stderr(&output));
    assert_eq!(bundle.ok(&["exec", &bundle.id, "pwd"]), "/\n");
}

/// Init holds what the runtime held when it was cloned, its lock too.
#[test]
fn a_delete_does_not_wait_for_an_init_that_has_lost_its_runtime() {
    let mut bundle = Bundle::new("sleep 100");
    let gate = Gate::new(bundle.path());
    bundle.config["hooks"]["createContainer"] = json!([gate.hook()]);
    let mut create = spawn_create(&bundle);
    gate.wait();
    create.kill().unwrap();
    create.wait().unwrap();
    let output = ends(bundle.command(&["delete", "--force", &bundle.id]));
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!bundle.root().join(&bundle.id).exists());
}

/// The command, whose caller left a directory of the host open.
fn careless(command: &Command) -> Command {
    let mut outer = Command::new("sh");
    outer.args(["-c", "exec 7< /etc; exec \"$@\"", "sh"]);
    outer.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    outer
}

/// CVE-2024-21626's first half.
#[test]
fn no_hook_and_no_process_gets_what_the_caller_left_open() {
    if !ours_only() {
        // runc before 1.1.12 hands it to hooks.
        return;
    }
    let mut bundle = Bundle::new("ls /proc/self/fd; sleep 100");
    let list = |kind: &str| {
        let file = bundle.path().join(kind);
        let script = format!("ls -l /proc/self/fd > {}", file.display());
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
    };
    const OF_THE_HOST: [&str; 5] =
        ["prestart", "createRuntime", "createContainer", "poststart", "poststop"];
    let mut hooks: serde_json::Map<String, Value> =
        OF_THE_HOST.iter().map(|kind| ((*kind).to_owned(), list(kind))).collect();
    hooks.insert(
        "startContainer".to_owned(),
        json!([{"path": "/bin/sh", "args": ["sh", "-c", "[ ! -e /proc/self/fd/7 ]"]}]),
    );
    bundle.config["hooks"] = Value::Object(hooks);
    let out = bundle.path().join("out");
    let run = bundle.command(&["run", "-d", "-b", bundle.path().to_str().unwrap(), &bundle.id]);
    let status = careless(&run)
        .stdout(fs::OpenOptions::new().append(true).create(true).open(&out).unwrap())
        .status()
        .unwrap();
    assert!(status.success());
    let exec = bundle.command(&["exec", &bundle.id, "ls", "/proc/self/fd"]);
    let output = careless(&exec).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "0\n1\n2\n3\n");
    let listed = || fs::read_to_string(&out).unwrap();
    let patience = Instant::now();
    while !listed().ends_with("3\n") {
        assert!(patience.elapsed() < Duration::from_secs(10), "{}", listed());
        std::thread::yield_now();
    }
    assert_eq!(listed(), "0\n1\n2\n3\n");
    let delete = bundle.command(&["delete", "--force", &bundle.id]);
    assert!(careless(&delete).status().unwrap().success());
    for kind in OF_THE_HOST {
        let text = fs::read_to_string(bundle.path().join(kind)).unwrap();
        assert!(text.contains("/proc/") || text.contains("hook"), "{kind}: {text}");
        assert!(!text.contains("/etc"), "{kind}: {text}");
    }
}

#[test]
fn an_exec_whose_pid_file_cannot_be_written_leaves_no_process() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    for flag in ["--pid-file", "--pidfd-socket"] {
        if flag == "--pidfd-socket" && !ours_only() {
            continue;
        }
        let missing = bundle.path().join("no/such/file");
        let exec = ["exec", "-d", flag, missing.to_str().unwrap(), &bundle.id, "sleep", "100"];
        let output = ends(bundle.command(&exec));
        assert!(!output.status.success(), "{flag}");
        let pids: Vec<i32> =
            serde_json::from_str(&bundle.ok(&["ps", "--format", "json", &bundle.id])).unwrap();
        assert_eq!(pids, [bundle.pid()], "{flag}");
    }
}

#[test]
fn a_pid_file_is_not_written_through_a_link() {
    let bundle = Bundle::new("sleep 100");
    let victim = bundle.path().join("victim");
    fs::write(&victim, "unharmed").unwrap();
    symlink(&victim, bundle.path().join(".pid")).unwrap();
    let (directory, file) = (bundle.path().to_str().unwrap(), bundle.path().join("pid"));
    let create =
        ["create", "--bundle", directory, "--pid-file", file.to_str().unwrap(), &bundle.id];
    let status = bundle.command(&create).stdout(Stdio::null()).stderr(Stdio::null()).status();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "unharmed");
    if ours_only() {
        // runc gives up: the name is taken.
        assert!(status.unwrap().success());
        assert_eq!(fs::read_to_string(&file).unwrap(), bundle.pid().to_string());
    }
}

/// A program on a read-only file system is not out of reach: the administrator may make that one
/// writable while a container still holds it.
#[test]
fn a_handle_on_the_runtime_stays_read_only_when_its_file_system_becomes_writable() {
    let bundle = Bundle::new("sleep 100");
    let place = bundle.path().join("place");
    fs::create_dir(&place).unwrap();
    // `command` writes the configuration.
    drop(bundle.command(&[]));
    let script = r#"
        mount -t tmpfs none "$PLACE" && cp "$BIN" "$PLACE/runtime" || exit 90
        mount -o remount,ro "$PLACE" || exit 91
        runtime="$PLACE/runtime --root $ROOT"
        $runtime create --bundle "$BUNDLE" --pid-file "$BUNDLE/pid" "$ID" < /dev/null > /dev/null || exit 92
        exec 9< /proc/$(cat "$BUNDLE/pid")/exe || exit 93
        $runtime delete --force "$ID" || exit 94
        mount -o remount,rw "$PLACE" && touch "$PLACE/writable" || exit 95
        if (: >> /proc/self/fd/9); then exit 1; fi
        exit 0
    "#;
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .env("PLACE", &place)
        .env("BIN", binary())
        .env("ROOT", bundle.root())
        .env("BUNDLE", bundle.path())
        .env("ID", &bundle.id)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// CVE-2019-19921's way round: the destination is only seen to be below `/proc` once it is resolved.
#[test]
fn nothing_is_mounted_below_proc_by_another_name() {
    for destination in ["/other/sys", "/other", "/./proc/sys", "/tmp/../proc/sys", "/tmp/way/sys"] {
        let mut bundle = Bundle::new("true");
        symlink("/proc", bundle.rootfs().join("other")).unwrap();
        symlink("../proc", bundle.rootfs().join("tmp/way")).unwrap();
        for kind in ["tmpfs", "bind"] {
            let mounts = bundle.config["mounts"].as_array_mut().unwrap();
            mounts.truncate(4);
            mounts.push(json!({
                "destination": destination, "type": kind, "source": "/tmp",
                "options": if kind == "bind" { json!(["bind"]) } else { json!(["nosuid"]) },
            }));
            let output = bundle.run();
            assert_eq!(output.status.code(), Some(1), "{kind} {destination}");
            let text = stderr(&output);
            assert!(text.contains("/proc"), "{kind} {destination}: {text}");
        }
    }
}

/// CRI-O's CVE-2022-0811: a name that the caller takes for harmless, and means another.
#[test]
fn a_sysctl_is_what_its_name_says_or_refused() {
    let now = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    for key in [
        "net.//.kernel.core_pattern",
        "net//.kernel.core_pattern",
        "net/../kernel/core_pattern",
        "net...kernel.core_pattern",
        "net/./../kernel/core_pattern",
        "net.ipv4.ip_forward/../../../kernel/core_pattern",
        "net..ipv4.ip_forward",
        "net.",
        "net.ipv4.ip_forward.",
        "net.ipv4.ip_forward+kernel.core_pattern",
        "net.ipv4.ip_forward\nkernel.core_pattern",
        "kernel.core_pattern",
        "/kernel/core_pattern",
        "",
    ] {
        let mut bundle = Bundle::new("true");
        // The value it has: nothing is harmed should it be taken.
        bundle.linux()["sysctl"] = json!({key: now.trim_end()});
        assert_eq!(bundle.run().status.code(), Some(1), "{key:?}");
    }
}

/// Takes what one caller sends to a socket, and never answers for it.
fn deaf_agent(path: &Path) -> std::thread::JoinHandle<usize> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0; 4096];
        let slices = &mut [std::io::IoSliceMut::new(&mut bytes)];
        recvmsg(&stream, slices, &mut control, RecvFlags::CMSG_CLOEXEC).unwrap();
        control.drain().filter(|found| matches!(found, RecvAncillaryMessage::ScmRights(_))).count()
    })
}

/// The agent is handed its listener by calls that wait for it, if the profile says so.
#[test]
fn a_profile_that_asks_about_sockets_does_not_hold_up_its_own_listener() {
    let mut bundle = Bundle::new("true");
    let socket = bundle.path().join("agent");
    bundle.linux()["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": socket,
        "syscalls": [{
            "names": ["sendmsg", "sendto", "recvmsg", "recvfrom"], "action": "SCMP_ACT_NOTIFY",
        }],
    });
    let directory = bundle.path().to_str().unwrap().to_owned();
    for no_new_privileges in [true, false] {
        bundle.process()["noNewPrivileges"] = json!(no_new_privileges);
        drop(fs::remove_file(&socket));
        let agent = deaf_agent(&socket);
        let output = ends(bundle.command(&["run", "--bundle", &directory, &bundle.id]));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert_eq!(agent.join().unwrap(), 1);
    }
}
