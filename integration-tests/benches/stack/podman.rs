//! podman, which has no daemon: a client with a home, a storage and a world of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use integration_tests::parts;

use crate::peers::Peers;
use crate::programs::{self, Program};
use crate::samples::Side;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Podman {
    pub(crate) world: World,
    programs: parts::Peers,
    directory: PathBuf,
    /// Busybox's id.
    pub(crate) image: String,
}

impl Podman {
    pub(crate) fn new(work: &Path) -> anyhow::Result<Self> {
        let programs = parts::Peers::podman();
        let directory = work.join("podman");
        let containers = directory.join(".config/containers");
        fs::create_dir_all(&containers)?;
        let world = World::new(work, "podman", &[])?;
        world.hide_the_unified_of_a_hybrid()?;
        // podman starts its runtime without variables.
        world.add_libraries(&programs.libraries(), &directory)?;
        // conmon runs podman again when the container has ended.
        let text = format!(
            "[containers]\nseccomp_profile = {:?}\n[engine]\nconmon_path = [{:?}]\n\
             cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"crun\"\n\
             conmon_env_vars = [{:?}]\n[engine.runtimes]\ncrun = [{:?}]\n",
            programs.directory().join("usr/share/containers/seccomp.json"),
            programs.program("conmon"),
            format!("PATH={}", std::env::var("PATH").unwrap_or_default()),
            programs.program("crun"),
        );
        fs::write(directory.join("containers.conf"), text)?;
        let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
        fs::write(containers.join("policy.json"), policy)?;
        Ok(Self { world, programs, directory, image: String::new() })
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.program("podman"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.directory)
            .env("CONTAINERS_CONF", self.directory.join("containers.conf"));
        if arguments != ["--version"] {
            command.arg("--root").arg(self.directory.join("root"));
            command.args(["--runroot", "/run/podman", "--cgroup-manager", "cgroupfs"]);
        }
        command.args(arguments.iter().take(1));
        if arguments.first() == Some(&"run") {
            // conmon goes there too: on the bill, and away with the world.
            command.arg("--cgroup-parent").arg(self.world.container_parent());
        }
        command.args(arguments.iter().skip(1));
        command
    }

    pub(crate) fn load(&mut self, archive: &Path) -> anyhow::Result<()> {
        self.world.run(&mut self.command(&["load", "-q", "-i", &archive.to_string_lossy()]))?;
        let images = self.world.output(&mut self.command(&["images", "-q"]))?;
        self.image = images.lines().next().context("podman has no image")?.to_owned();
        Ok(())
    }

    pub(crate) fn programs(&self, peers: &Peers) -> anyhow::Result<Vec<Program>> {
        let names = ["podman", "conmon", "crun"].into_iter();
        names
            .map(|name| {
                let program = self.programs.program(name);
                programs::describe(Side::Podman, program, peers, &self.world)
            })
            .collect()
    }
}
