//! The rows of the red-team table that are races: somebody exchanges names while a container is made,
//! or looks into those who come to it. `ROUNDS=` of each, 500 if not said.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use serde_json::{Value, json};

use crate::bundle::{Bundle, binary};
use crate::victim::Victim;

fn rounds() -> u32 {
    std::env::var("ROUNDS").map_or(500, |rounds| rounds.parse().unwrap())
}

/// Exchanges two names until it goes: what another container with the same volume would do.
struct Exchange {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Exchange {
    fn of(one: &Path, other: &Path) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let (one, other, ended) = (one.to_owned(), other.to_owned(), Arc::clone(&end));
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                rustix::fs::renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
                // The runtime needs a processor too.
                std::thread::yield_now();
            }
        });
        Self { end, thread: Some(thread) }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

/// Runs it again and again; whether a run succeeds is not the question.
fn run_often(bundle: &mut Bundle, victim: &Victim, between: &dyn Fn()) {
    // What has nothing to do with files only takes time.
    bundle.linux()["namespaces"] = json!([{"type": "pid"}, {"type": "mount"}]);
    bundle.config["hostname"] = json!("");
    let directory = bundle.path().to_str().unwrap();
    let arguments = ["run", "--bundle", directory, &bundle.id];
    let mut command = bundle.command(&arguments);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    for round in 0..rounds() {
        command.status().unwrap();
        victim.is_unharmed(&format!("round {round}"));
        between();
    }
}

/// Takes back what a run has made in a directory that bears changing names: by its handle.
fn clear(directory: &OwnedFd, made: &[&str]) {
    for name in made {
        for flags in [AtFlags::empty(), AtFlags::REMOVEDIR] {
            rustix::fs::unlinkat(directory, *name, flags).ok();
        }
    }
}

fn handle(directory: &Path) -> OwnedFd {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty()).unwrap()
}

/// CVE-2021-30465, CVE-2019-18837, CVE-2024-45310: the way to a mount point, in a shared volume.
#[test]
fn a_mount_point_is_not_exchanged_for_a_link_to_the_host() {
    let mut bundle = Bundle::new("true");
    let victim = Victim::new(bundle.path());
    let volume = bundle.path().join("volume");
    fs::create_dir_all(volume.join("way")).unwrap();
    symlink(victim.path(), volume.join("link")).unwrap();
    bundle.add_mount(json!({
        "destination": "/volume", "type": "bind", "source": volume, "options": ["rbind"],
    }));
    for (destination, kind) in [("/volume/way/a/b", "tmpfs"), ("/volume/way/c", "tmpfs")] {
        bundle.add_mount(json!({"destination": destination, "type": kind, "source": kind}));
    }
    let source = bundle.path().join("source");
    fs::write(&source, "").unwrap();
    bundle.add_mount(json!({
        "destination": "/volume/way/file", "type": "bind", "source": source, "options": ["bind"],
    }));
    let way = handle(&volume.join("way"));
    let attack = Exchange::of(&volume.join("way"), &volume.join("link"));
    run_often(&mut bundle, &victim, &|| clear(&way, &["a/b", "a", "c", "file"]));
    drop(attack);
}

/// CVE-2026-41579 by race: `/dev` is a directory when it is looked at.
#[test]
fn devices_are_not_made_behind_a_link_that_comes_up() {
    let mut bundle = Bundle::new("true");
    let victim = Victim::new(bundle.path());
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let (real, link) = (bundle.rootfs().join("dev"), bundle.path().join("link"));
    fs::create_dir(&real).unwrap();
    symlink(victim.path(), &link).unwrap();
    let dev = handle(&real);
    let attack = Exchange::of(&real, &link);
    let names = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "fd", "core"];
    let more = ["stdin", "stdout", "stderr", "console"];
    run_often(&mut bundle, &victim, &|| clear(&dev, &[names.as_slice(), &more].concat()));
    drop(attack);
}

/// CVE-2025-31133: the null device that masks.
#[test]
fn a_null_device_is_not_exchanged_for_a_file_to_write_to() {
    let mut bundle = Bundle::new("echo harm > /masked");
    let victim = Victim::new(bundle.path());
    let mounts = bundle.config["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    bundle.add_mount(json!({
        "destination": "/volume", "type": "bind", "source": victim.path(), "options": ["rbind"],
    }));
    bundle.linux()["readonlyPaths"] = json!(["/volume"]);
    bundle.linux()["maskedPaths"] = json!(["/masked"]);
    fs::write(bundle.rootfs().join("masked"), "").unwrap();
    let dev = bundle.rootfs().join("dev");
    fs::create_dir(&dev).unwrap();
    let (mode, id) = (Mode::from_raw_mode(0o666), rustix::fs::makedev(1, 3));
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(CWD, dev.join("null"), kind, mode, id).unwrap();
    symlink("/volume/file", dev.join("other")).unwrap();
    let attack = Exchange::of(&dev.join("null"), &dev.join("other"));
    run_often(&mut bundle, &victim, &|| ());
    drop(attack);
}

/// Who watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Watcher {
    Ordinary,
    /// All of the host's: it may look at everybody's descriptors, but the runtime's file is not its.
    Privileged,
}

/// CVE-2019-5736, CVE-2016-9962, CVE-2024-21626: who enters is watched by those inside.
fn enter_under_watch(watcher: Watcher) {
    // What the first process and the watcher have open is no secret. A handle on the program is kept until nobody runs
    // it: then it could be written to.
    let first = "case $p in /proc/1|/proc/2) continue;; esac;";
    let handle = "{ while [ -e $p/exe ]; do :; done; (: >> /proc/self/fd/8) && echo wrote $p; } \
                  8< $p/exe;";
    let secrets = "for fd in $p/fd/*; do [ -d $fd/ ] && echo opened $fd; done; \
                   grep -q RUNTIME_SECRET $p/environ && echo read $p; \
                   [ -e $p/root$FOREIGN ] && echo saw $p; [ -e $p/cwd$FOREIGN ] && echo saw $p; ";
    let watched = if watcher == Watcher::Privileged { "" } else { secrets };
    let script = format!(
        "while :; do for p in /proc/[0-9]*; do {first} {watched} {handle} done; done 2> /dev/null"
    );
    let mut bundle = Bundle::new("sleep 1000");
    // Its own programs cannot be written to; what can be is not its own.
    bundle.config["root"]["readonly"] = json!(true);
    let foreign = format!("FOREIGN={}/config.json", bundle.path().display());
    bundle.process()["env"].as_array_mut().unwrap().push(Value::String(foreign));
    if watcher == Watcher::Privileged {
        let features: Value = serde_json::from_str(&bundle.ok(&["features"])).unwrap();
        let all = &features["linux"]["capabilities"];
        bundle.process()["capabilities"] =
            json!({"bounding": all, "effective": all, "permitted": all});
    }
    // A copy that nobody else keeps busy.
    let program = bundle.path().join("runtime");
    fs::copy(binary(), &program).unwrap();
    let before = fs::read(&program).unwrap();
    let command = |arguments: &[&str]| {
        let ours = bundle.command(arguments);
        let mut command = Command::new(&program);
        command.args(ours.get_args()).stdin(Stdio::null()).env("RUNTIME_SECRET", "of the host");
        command
    };
    let out = bundle.path().join("out");
    let file = || fs::OpenOptions::new().append(true).create(true).open(&out).unwrap();
    let run = ["run", "-d", "-b", bundle.path().to_str().unwrap(), &bundle.id];
    assert!(command(&run).stdout(file()).status().unwrap().success());
    let watch = ["exec", "-d", &bundle.id, "sh", "-c", &script];
    assert!(command(&watch).stdout(file()).status().unwrap().success());
    let mut exec = command(&["exec", &bundle.id, "true"]);
    exec.stdout(Stdio::null()).stderr(Stdio::null());
    for round in 0..rounds() {
        assert!(exec.status().unwrap().success(), "round {round}");
        assert_eq!(fs::read_to_string(&out).unwrap(), "", "round {round}");
    }
    assert!(fs::read(&program).unwrap() == before);
}

#[test]
fn a_process_that_enters_shows_nothing_of_the_host() {
    enter_under_watch(Watcher::Ordinary);
}

#[test]
fn a_process_that_enters_a_privileged_container_lends_no_handle_on_the_runtime() {
    enter_under_watch(Watcher::Privileged);
}
