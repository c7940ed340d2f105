//! podman, which has no daemon: its configuration lies in the stack's home, its state in its data.

use std::fs;
use std::process::Command;

use integration_tests::parts::Peers;
use integration_tests::{Stack, image};

use crate::client::feed;
use crate::row::World;

/// podman's words are docker's.
pub(crate) fn command(stack: &Stack, words: &[&str]) -> Command {
    let home = stack.root().join("home");
    let mut command = stack.sandbox().inside(Peers::podman().program("podman"));
    command
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("LD_LIBRARY_PATH", Peers::podman().libraries())
        .env("HOME", &home)
        .env("CONTAINERS_CONF", home.join("containers.conf"))
        .arg("--root")
        .arg(stack.data_root())
        .args(["--runroot", "/run/podman"])
        .args(words);
    command
}

/// Writes the configuration and loads busybox.
pub(crate) fn prepare(world: &World) {
    let home = world.stack.root().join("home");
    let peers = Peers::podman();
    let text = format!(
        "[containers]\nseccomp_profile = {seccomp:?}\n\
         [engine]\nconmon_path = [{conmon:?}]\ncgroup_manager = \"cgroupfs\"\n\
         events_logger = \"file\"\nruntime = \"under-test\"\n\
         conmon_env_vars = [{path:?}, {libraries:?}]\n\
         [engine.runtimes]\nunder-test = [{runtime:?}]\n",
        // conmon runs podman again when the container has ended.
        path = format!("PATH={}", std::env::var("PATH").unwrap_or_default()),
        libraries = format!("LD_LIBRARY_PATH={}", peers.libraries()),
        seccomp = peers.directory().join("usr/share/containers/seccomp.json"),
        conmon = peers.program("conmon"),
        runtime = world.row().runtime.path(),
    );
    fs::write(home.join("containers.conf"), text).expect("containers.conf");
    let containers = home.join(".config/containers");
    fs::create_dir_all(&containers).expect("a directory");
    let policy = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
    fs::write(containers.join("policy.json"), policy).expect("policy.json");
    let archive = image::busybox_archive().display().to_string();
    let loaded = feed(command(&world.stack, &["load", "-i", &archive]), b"");
    assert_eq!(loaded.code, 0, "{loaded:?}");
}
