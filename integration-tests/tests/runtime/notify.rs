//! `NOTIFY_SOCKET`: what a container tells systemd (sd_notify(3)) reaches the caller's socket.

use std::fs;
use std::io::{IoSliceMut, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde_json::json;

use crate::bundle::{Bundle, ours_only, stderr};

/// A container that tells what it sees through a fifo, and the socket of who called for it.
struct Notified {
    bundle: Bundle,
    host: UnixDatagram,
}

impl Notified {
    fn new(script: &str) -> Self {
        let bundle =
            Bundle::new(&format!("{{ echo $NOTIFY_SOCKET; cat /proc/mounts; }} >/up; {script}"));
        let status = Command::new("mkfifo").arg(bundle.rootfs().join("up")).status().unwrap();
        assert!(status.success());
        let host = UnixDatagram::bind(bundle.path().join("host.sock")).unwrap();
        host.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { bundle, host }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bundle.command(arguments);
        command.env("NOTIFY_SOCKET", self.bundle.path().join("host.sock"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn create(&self) {
        let path = self.bundle.path().to_str().unwrap();
        let status = self.command(&["create", "-b", path, &self.bundle.id]).status().unwrap();
        assert!(status.success());
    }

    fn start(&self) -> Child {
        self.command(&["start", &self.bundle.id]).spawn().unwrap()
    }

    /// The socket's name and the mounts as the container's program sees them, once it runs.
    fn told(&self) -> (String, String) {
        let text = fs::read_to_string(self.bundle.rootfs().join("up")).unwrap();
        let (socket, mounts) = text.split_once('\n').unwrap();
        (socket.to_owned(), mounts.to_owned())
    }

    /// As if the container said so.
    fn say(&self, text: &str) {
        let path = format!("/proc/{}/root/run/notify/notify.sock", self.bundle.pid());
        UnixDatagram::unbound().unwrap().send_to(text.as_bytes(), path).unwrap();
    }

    fn heard(&self) -> (String, Option<OwnedFd>) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut bytes = [0_u8; 4096];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let message = rustix::net::recvmsg(&self.host, &mut parts, &mut control, flags).unwrap();
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        (String::from_utf8(bytes[..message.bytes].to_vec()).unwrap(), fd)
    }

    /// What the host hears of a container that is ready; its end of the barrier.
    fn expect_ready(&self, main: u32) -> OwnedFd {
        assert_eq!(self.heard().0, "READY=1\n");
        assert_eq!(self.heard().0, format!("MAINPID={main}\n"));
        let (text, barrier) = self.heard();
        assert_eq!(text, "BARRIER=1");
        barrier.unwrap()
    }

    fn silent(&self) -> bool {
        self.host.set_nonblocking(true).unwrap();
        self.host.recv(&mut [0; 16]).is_err()
    }
}

#[test]
fn start_waits_until_the_container_is_ready_and_says_so() {
    let notified = Notified::new("sleep 100");
    let directory = notified.bundle.root().join(&notified.bundle.id).join("notify");
    notified.create();
    assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(!directory.join("notify.sock").exists(), "nobody listens yet");
    let mut start = notified.start();
    let (socket, mounts) = notified.told();
    assert_eq!(socket, "/run/notify/notify.sock");
    let mount = mounts.lines().find(|line| line.contains(" /run/notify ")).unwrap();
    let options: Vec<&str> = mount.split(' ').nth(3).unwrap().split(',').collect();
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        assert!(options.contains(&option), "{option}: {mount}");
    }
    let mode = fs::metadata(directory.join("notify.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o777);
    notified.say("STATUS=booting");
    assert!(start.try_wait().unwrap().is_none(), "it waits for READY=1");
    notified.say("READY=1\nSTATUS=up");
    let pid = u32::try_from(notified.bundle.pid()).unwrap();
    let barrier = notified.expect_ready(pid);
    assert!(start.try_wait().unwrap().is_none(), "it waits for the barrier");
    // Others may act on the container meanwhile.
    assert_eq!(notified.bundle.ok(&["exec", &notified.bundle.id, "sh", "-c", "echo in"]), "in\n");
    drop(barrier);
    assert_eq!(start.wait().unwrap().code(), Some(0));
    assert_eq!(notified.bundle.status(), "running");
    assert!(notified.silent());
    notified.bundle.ok(&["delete", "--force", &notified.bundle.id]);
    assert!(!directory.exists());
}

#[test]
fn start_ends_with_a_container_that_never_was_ready() {
    let notified = Notified::new("read line </up");
    notified.create();
    let mut start = notified.start();
    notified.told();
    let pid = notified.bundle.pid();
    fs::write(notified.bundle.rootfs().join("up"), "end\n").unwrap();
    if ours_only() {
        assert_eq!(start.wait().unwrap().code(), Some(0));
    } else {
        // Stock looks at the pid alone: a corpse, ours until it is reaped, keeps it waiting.
        notified.bundle.wait_gone(pid);
        start.kill().unwrap();
        start.wait().unwrap();
    }
    assert!(notified.silent());
}

#[test]
fn who_starts_without_a_socket_waits_for_nothing() {
    let notified = Notified::new("sleep 100");
    notified.create();
    notified.bundle.detached(&["start", &notified.bundle.id]);
    assert_eq!(notified.told().0, "/run/notify/notify.sock", "as it was created");
    assert_eq!(notified.bundle.status(), "running");
}

#[test]
fn a_container_made_without_a_socket_cannot_be_started_with_one() {
    let notified = Notified::new("sleep 100");
    let bundle = &notified.bundle;
    bundle.detached(&["create", "-b", bundle.path().to_str().unwrap(), &bundle.id]);
    let mut start = notified.command(&["start", &bundle.id]);
    let output = start.stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let socket = bundle.root().join(&bundle.id).join("notify/notify.sock");
    let words = format!("listen unixgram {}: bind: no such file or directory", socket.display());
    assert!(stderr(&output).contains(&words), "{}", stderr(&output));
    assert_eq!(bundle.status(), "created");
}

#[test]
fn a_caller_who_does_not_listen_is_told() {
    let notified = Notified::new("sleep 100");
    notified.create();
    let path = notified.bundle.path().join("host.sock");
    fs::remove_file(&path).unwrap();
    let mut start = notified.command(&["start", &notified.bundle.id]);
    let start = start.stderr(Stdio::piped()).spawn().unwrap();
    notified.told();
    let output = start.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = format!("dial unixgram {}: connect: no such file or directory", path.display());
    assert!(stderr(&output).contains(&words), "{}", stderr(&output));
    // Compat: it runs all the same.
    assert_eq!(notified.bundle.status(), "running");
}

#[test]
fn run_detached_waits_as_start_does() {
    let notified = Notified::new("sleep 100");
    let bundle = &notified.bundle;
    let path = bundle.path().to_str().unwrap();
    let mut run = notified.command(&["run", "-d", "-b", path, &bundle.id]).spawn().unwrap();
    assert_eq!(notified.told().0, "/run/notify/notify.sock");
    notified.say("READY=1");
    drop(notified.expect_ready(u32::try_from(bundle.pid()).unwrap()));
    assert_eq!(run.wait().unwrap().code(), Some(0));
}

#[test]
fn run_in_the_foreground_is_the_main_process_itself() {
    let notified = Notified::new("read line </up; echo $line; exit 7");
    let bundle = &notified.bundle;
    let path = bundle.path().to_str().unwrap();
    let mut run = notified.command(&["run", "-b", path, &bundle.id]);
    let mut run = run.stdout(Stdio::piped()).spawn().unwrap();
    notified.told();
    notified.say("READY=1\n");
    drop(notified.expect_ready(run.id()));
    fs::write(bundle.rootfs().join("up"), "done\n").unwrap();
    let mut text = String::new();
    run.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), run.wait().unwrap().code()), ("done\n", Some(7)));
    assert!(notified.silent());
}

#[test]
fn run_in_the_foreground_ends_with_its_container_ready_or_not() {
    if !ours_only() {
        return; // stock waits for READY=1 for ever
    }
    let notified = Notified::new("exit 7");
    let bundle = &notified.bundle;
    let path = bundle.path().to_str().unwrap();
    let mut run = notified.command(&["run", "-b", path, &bundle.id]).spawn().unwrap();
    notified.told();
    assert_eq!(run.wait().unwrap().code(), Some(7));
    assert!(notified.silent());
}

#[test]
fn a_user_of_the_container_without_rights_can_say_so() {
    let mut notified = Notified::new("sleep 100");
    notified.bundle.use_user_namespace();
    notified.bundle.process()["user"] = json!({"uid": 7, "gid": 7});
    let up = notified.bundle.rootfs().join("up");
    fs::set_permissions(up, fs::Permissions::from_mode(0o666)).unwrap();
    notified.create();
    let mut start = notified.start();
    assert!(notified.told().1.contains(" /run/notify "));
    notified.say("READY=1");
    drop(notified.expect_ready(u32::try_from(notified.bundle.pid()).unwrap()));
    assert_eq!(start.wait().unwrap().code(), Some(0));
}

#[test]
fn a_root_with_a_long_name_has_room_for_the_socket() {
    if !ours_only() {
        return; // stock binds by the whole path, of which 107 bytes is all that goes
    }
    let mut notified = Notified::new("sleep 100");
    notified.bundle.id = format!("{}-{}", notified.bundle.id, "x".repeat(100));
    notified.create();
    let mut start = notified.start();
    notified.told();
    notified.say("READY=1");
    drop(notified.expect_ready(u32::try_from(notified.bundle.pid()).unwrap()));
    assert_eq!(start.wait().unwrap().code(), Some(0));
}
