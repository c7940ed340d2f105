//! Bundles for runtimes: as dockerd writes them and as `runc spec` does, and what of them is a plan for
//! the kernel alone.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use integration_tests::parts;
use nix::mount::MsFlags;
use serde_json::{Value, json};

use crate::peers::Peers;
use crate::stack::Stack;
use crate::world::{World, hierarchies};

/// A specification with a root file system that all use.
#[derive(Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    config: Value,
}

/// Busybox with the places that the shapes mount on: one of them has a root that is read-only.
pub(crate) fn root(work: &Path) -> anyhow::Result<PathBuf> {
    let root = work.join("rootfs");
    parts::root_file_system(&root, &["true", "sleep"]);
    for directory in ["dev", "proc", "sys", "etc"] {
        fs::create_dir_all(root.join(directory))?;
    }
    for file in ["etc/hosts", "etc/hostname", "etc/resolv.conf"] {
        fs::write(root.join(file), "")?;
    }
    Ok(root)
}

impl Shape {
    /// What stock dockerd hands its containerd, but for what is the daemon's: hooks, and mounts out of
    /// its directories.
    pub(crate) fn docker(stack: &Stack, work: &Path) -> anyhow::Result<Self> {
        let mut connection = stack.connect()?;
        let body = r#"{"Image":"busybox","Cmd":["sleep","10000"]}"#;
        let id = connection.create("/containers/create", body)?;
        connection.request("POST", &format!("/containers/{id}/start"), "")?;
        let path = stack.bundle(&id).join("config.json");
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        connection.request("DELETE", &format!("/containers/{id}?force=1"), "")?;
        let mut config: Value = serde_json::from_str(&text)?;
        config.as_object_mut().context("no object")?.remove("hooks");
        for namespace in list(&mut config["linux"]["namespaces"]) {
            namespace.as_object_mut().context("no object")?.remove("path");
        }
        for mount in list(&mut config["mounts"]) {
            let source = mount["source"].as_str().unwrap_or_default();
            if !Path::new(source).starts_with(&stack.directory) {
                continue;
            }
            let own =
                work.join(mount["destination"].as_str().unwrap_or_default().replace('/', "_"));
            if mount["destination"] == "/dev/shm" {
                fs::create_dir_all(&own)?;
            } else {
                fs::write(&own, "")?;
            }
            mount["source"] = json!(own);
        }
        Ok(Self { name: "docker", config })
    }

    pub(crate) fn minimal(peers: &Peers, world: &World, work: &Path) -> anyhow::Result<Self> {
        let directory = work.join("spec");
        fs::create_dir_all(&directory)?;
        let mut command = peers.command("runc");
        world.run(command.current_dir(&directory).arg("spec"))?;
        let config = serde_json::from_slice(&fs::read(directory.join("config.json"))?)?;
        Ok(Self { name: "minimal", config })
    }

    /// Writes a bundle that runs a program.
    pub(crate) fn bundle(
        &self,
        directory: &Path,
        root: &Path,
        group: &str,
        words: &[&str],
    ) -> anyhow::Result<()> {
        fs::create_dir_all(directory)?;
        let mut config = self.config.clone();
        config["root"]["path"] = json!(root);
        config["process"]["args"] = json!(words);
        config["process"]["terminal"] = json!(false);
        config["linux"]["cgroupsPath"] = json!(group);
        fs::write(directory.join("config.json"), config.to_string())?;
        Ok(())
    }

    /// The steps of `guest floor` for the same container, as seen from inside a world.
    pub(crate) fn plan(&self, root: &Path, group: &str) -> anyhow::Result<String> {
        let mut plan = Plan::default();
        plan.line(&["root", &root.to_string_lossy()])?;
        plan.line(&["exec", "/bin/true"])?;
        for namespace in words(&self.config["linux"]["namespaces"], "type") {
            plan.line(&["namespace", namespace])?;
        }
        let groups: Vec<(PathBuf, PathBuf)> = hierarchies()
            .into_iter()
            .map(|top| (top.join(group.trim_start_matches('/')), top))
            .collect();
        for (group, _) in &groups {
            plan.line(&["group", &group.to_string_lossy()])?;
        }
        for mount in self.config["mounts"].as_array().context("no mounts")? {
            plan.mount(mount, &groups)?;
        }
        for (place, major, minor) in [
            ("/dev/null", "1", "3"),
            ("/dev/zero", "1", "5"),
            ("/dev/full", "1", "7"),
            ("/dev/random", "1", "8"),
            ("/dev/urandom", "1", "9"),
            ("/dev/tty", "5", "0"),
        ] {
            plan.line(&["device", place, major, minor])?;
        }
        let linux = &self.config["linux"];
        for path in words(&linux["readonlyPaths"], "").filter(|path| Path::new(path).exists()) {
            plan.step("late", path, "", path, MsFlags::MS_BIND | MsFlags::MS_REC, "")?;
            plan.read_only("late", path)?;
        }
        for path in words(&linux["maskedPaths"], "").filter(|path| Path::new(path).exists()) {
            if Path::new(path).is_dir() {
                plan.step("late", "tmpfs", "tmpfs", path, MsFlags::MS_RDONLY, "")?;
            } else {
                plan.step("late", "/dev/null", "", path, MsFlags::MS_BIND, "")?;
            }
        }
        if self.config["root"]["readonly"] == true {
            plan.read_only("late", "/")?;
        }
        Ok(plan.text)
    }
}

#[derive(Default)]
struct Plan {
    text: String,
}

impl Plan {
    fn line(&mut self, fields: &[&str]) -> anyhow::Result<()> {
        writeln!(self.text, "{}", fields.join("\t"))?;
        Ok(())
    }

    fn step(
        &mut self,
        when: &str,
        source: &str,
        kind: &str,
        place: &str,
        flags: MsFlags,
        data: &str,
    ) -> anyhow::Result<()> {
        self.line(&[when, source, kind, place, &flags.bits().to_string(), data])
    }

    fn read_only(&mut self, when: &str, place: &str) -> anyhow::Result<()> {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        self.step(when, "", "", place, flags, "")
    }

    fn mount(&mut self, mount: &Value, groups: &[(PathBuf, PathBuf)]) -> anyhow::Result<()> {
        let text = |name: &str| mount[name].as_str().unwrap_or_default();
        let (kind, source, place) = (text("type"), text("source"), text("destination"));
        if kind == "cgroup" {
            self.step("mount", "tmpfs", "tmpfs", place, MsFlags::empty(), "mode=755")?;
            for (group, top) in groups {
                let name = top.file_name().unwrap_or_default().to_string_lossy();
                let place = format!("{place}/{name}");
                self.step("mount", &group.to_string_lossy(), "", &place, MsFlags::MS_BIND, "")?;
                self.read_only("mount", &place)?;
            }
            return Ok(());
        }
        let mut flags = MsFlags::empty();
        let mut data = Vec::new();
        for word in words(&mount["options"], "") {
            match flag(word) {
                Some(flag) => flags |= flag,
                None => data.push(word),
            }
        }
        if !flags.contains(MsFlags::MS_BIND) {
            return self.step("mount", source, kind, place, flags, &data.join(","));
        }
        let bind = MsFlags::MS_BIND | (flags & MsFlags::MS_REC);
        self.step("mount", source, "", place, bind, "")?;
        if flags.contains(MsFlags::MS_RDONLY) {
            self.read_only("mount", place)?;
        }
        Ok(())
    }
}

/// Propagation is the kernel's default here: what was made private stays so.
fn flag(word: &str) -> Option<MsFlags> {
    Some(match word {
        "ro" => MsFlags::MS_RDONLY,
        "nosuid" => MsFlags::MS_NOSUID,
        "nodev" => MsFlags::MS_NODEV,
        "noexec" => MsFlags::MS_NOEXEC,
        "relatime" => MsFlags::MS_RELATIME,
        "strictatime" => MsFlags::MS_STRICTATIME,
        "bind" => MsFlags::MS_BIND,
        "rbind" => MsFlags::MS_BIND | MsFlags::MS_REC,
        "rw" | "private" | "rprivate" | "rslave" => MsFlags::empty(),
        _ => return None,
    })
}

fn list(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_array_mut().into_iter().flatten()
}

/// The strings of a list, or of one field of its objects.
fn words<'a>(value: &'a Value, field: &'a str) -> impl Iterator<Item = &'a str> {
    let all = value.as_array().into_iter().flatten();
    all.filter_map(move |one| if field.is_empty() { one.as_str() } else { one[field].as_str() })
}
