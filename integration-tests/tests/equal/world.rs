//! A stack with what the cases bind, and one container of it after another.

use std::fs;
use std::path::Path;

use integration_tests::Stack;
use integration_tests::sandbox::until;
use integration_tests::stack::Builder;
use serde_json::json;

use crate::cases::Case;
use crate::facts::Facts;
use crate::names::Names;
use crate::{host, probe};

/// A running stack with the same surroundings on every host.
pub(crate) struct World {
    pub(crate) stack: Stack,
    /// Of a throttled device: `MAJOR:MINOR`.
    pub(crate) block: String,
}

impl World {
    pub(crate) fn start(parts: Builder) -> Self {
        let stack = parts.with_busybox().start();
        let root = stack.root().to_owned();
        fs::create_dir_all(root.join("source/inner")).expect("a directory");
        fs::write(root.join("source/file"), "of the host\n").expect("a file");
        fs::create_dir_all(root.join("peers")).expect("a directory");
        let resolv = root.join("resolv.conf");
        let text = "nameserver 10.255.255.53\nnameserver 127.0.0.53\n\
                    search host.example\noptions timeout:2\n";
        fs::write(&resolv, text).expect("resolv.conf");
        over(&stack, &resolv, "/etc/resolv.conf");
        let hosts = root.join("hosts");
        fs::write(&hosts, "127.0.0.1 localhost\n10.255.0.1 of-the-host\n").expect("hosts");
        over(&stack, &hosts, "/etc/hosts");
        let block = block_device(&root.join("block"));
        let world = Self { stack, block };
        let peers = root.join("peers").display().to_string();
        for command in [
            vec!["mount", "-t", "tmpfs", "-o", "size=1m", "peers", &peers],
            vec!["mount", "--make-rshared", &peers],
            vec!["mkdir", &format!("{peers}/below")],
            vec![
                "mount",
                "-t",
                "tmpfs",
                "-o",
                "size=64k,nosuid",
                "below",
                &format!("{peers}/below"),
            ],
        ] {
            world.inside(&command);
        }
        world
    }

    fn inside(&self, command: &[&str]) {
        let busybox = integration_tests::parts::busybox().display().to_string();
        let mut words = vec![busybox.as_str()];
        words.extend(command);
        self.stack.inside(&words).ok();
    }

    /// Runs the case's container, looks at it from inside and outside, and removes it.
    pub(crate) fn look(&self, case: &Case) -> Facts {
        let api = self.stack.api();
        let root = self.stack.root().display().to_string();
        let first = case.first.as_ref().map(|more| {
            let mut body = more.clone();
            body["Image"] = json!("busybox");
            body["Cmd"] = json!(["sleep", "100000"]);
            let body = body.to_string().replace("ROOT", &root);
            api.run("first", &serde_json::from_str(&body).expect("JSON stays JSON"))
        });
        let facts = self.run(case, &root, first.as_deref());
        if let Some(first) = first {
            api.delete(&format!("/containers/{first}?force=1&v=1")).expect(204);
        }
        facts
    }

    /// A request that is refused, or does not start, has that as its only fact.
    fn run(&self, case: &Case, root: &str, first: Option<&str>) -> Facts {
        let api = self.stack.api();
        let mut facts = Facts::default();
        let created = api.post_json("/containers/create?name=case", &case.request(root));
        if created.status != 201 {
            facts.set("refused", created.message());
            return facts;
        }
        let created = created.json();
        let id = created["Id"].as_str().expect("an id").to_owned();
        let names = Names::of(self, &id, first);
        let started = api.post(&format!("/containers/{id}/start"));
        if started.status == 204 {
            facts = self.seen(&id, first);
            facts.flatten("created.Warnings", &created["Warnings"]);
        } else {
            facts.set("not started", started.message());
        }
        self.remove(&id);
        names.apply(facts)
    }

    fn seen(&self, id: &str, first: Option<&str>) -> Facts {
        let api = self.stack.api();
        let mut log = api.open(&format!("/containers/{id}/logs?stdout=1&stderr=1&follow=1"));
        log.until(probe::END);
        let log = api.get(&format!("/containers/{id}/logs?stdout=1&stderr=1")).expect(200);
        let shown = api.inspect(id);
        let tty = shown["Config"]["Tty"] == true;
        let (text, wrong) = if tty { (log.text(), String::new()) } else { log.streams() };
        let bridge = api.get("/networks/bridge").expect(200).json();
        let bridge = bridge["Options"]["com.docker.network.bridge.name"].clone();
        let bridge = bridge.as_str().expect("a bridge").to_owned();
        let mut facts = probe::parse(&text.replace(&bridge, "BRIDGE"));
        facts.set("stderr", wrong);
        // In the order of a Go map.
        let mut shown = shown;
        if let Some(mounts) = shown["Mounts"].as_array_mut() {
            mounts.sort_by_key(|mount| mount["Destination"].to_string());
        }
        facts.flatten("inspect", &shown);
        facts.extend(host::look(&self.stack, &shown, first));
        facts
    }

    fn remove(&self, id: &str) {
        let api = self.stack.api();
        let removed = api.delete(&format!("/containers/{id}?force=1&v=1"));
        // One that removes itself may be under way.
        assert!(matches!(removed.status, 204 | 404 | 409), "{}", removed.text());
        let gone = || api.get(&format!("/containers/{id}/json")).status == 404;
        until("the container is gone", gone);
        let volume = api.delete("/volumes/data?force=1");
        assert_eq!(volume.status, 204, "{}", volume.text());
        let made = self.stack.root().join("made");
        if made.exists() {
            fs::remove_dir_all(made).expect("what was made on the way goes");
        }
    }

    pub(crate) fn end(self) {
        let peers = self.stack.root().join("peers").display().to_string();
        self.inside(&["umount", &format!("{peers}/below")]);
        self.inside(&["umount", &peers]);
        self.inside(&["umount", "/etc/resolv.conf"]);
        self.inside(&["umount", "/etc/hosts"]);
        if self.stack.is_stock() {
            // What stock leaves behind is not judged here.
            self.stack.kill_engine();
        }
        self.stack.end();
    }
}

/// Puts a file in the place of one of the host's, in the sandbox only.
fn over(stack: &Stack, file: &Path, path: &str) {
    let place = fs::canonicalize(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    // A link may lead to /run, which is the sandbox's own.
    let inside = stack.sandbox().path(&place);
    if !inside.exists() {
        fs::create_dir_all(inside.parent().expect("a directory")).expect("a directory");
        fs::write(&inside, "").expect("a place for a file");
    }
    stack.sandbox().bind(file, &place);
}

/// Makes a node of some block device of the host; gives its numbers.
fn block_device(at: &Path) -> String {
    let mut all: Vec<String> = fs::read_dir("/sys/class/block")
        .expect("/sys/class/block")
        .flatten()
        .filter(|entry| !entry.path().join("partition").exists())
        .filter_map(|entry| fs::read_to_string(entry.path().join("dev")).ok())
        .map(|numbers| numbers.trim().to_owned())
        .collect();
    all.sort();
    let numbers = all.last().expect("the host has a block device").clone();
    let (major, minor) = numbers.split_once(':').expect("two numbers");
    let busybox = integration_tests::parts::busybox();
    let made = std::process::Command::new(busybox)
        .arg("mknod")
        .arg(at)
        .args(["b", major, minor])
        .status()
        .expect("busybox runs");
    assert!(made.success(), "mknod b {numbers}");
    numbers
}
