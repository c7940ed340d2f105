//! Profiles: what the engine tells runtime, parser and client. What a profile does to a process is seen
//! in the virtual machine (`scripts/vm/apparmor-rows.sh`); here the files by which a kernel shows that it
//! confines are the test's, the parser is a script, and another takes the profile away before the runtime
//! sees it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use integration_tests::Stack;
use integration_tests::pool::lease;
use serde_json::{Value, json};

use crate::{in_container, sleeper, with};

/// Judged on hosts without AppArmor, as the build hosts are; on others the start is refused.
#[test]
fn a_profile_is_passed_over_where_the_kernel_knows_none() {
    let known = std::path::Path::new("/sys/kernel/security/apparmor").exists();
    let stack = lease();
    let api = stack.api();
    let told = api.get("/info").expect(200).json()["SecurityOptions"].to_string();
    assert_eq!(told.contains("name=apparmor"), known, "{told}");
    let id = api.create("named", &with(sleeper(), security(&["apparmor=nobody-has-it"])));
    // Taken from the request, whatever the kernel knows.
    assert_eq!(api.inspect(&id)["AppArmorProfile"], "nobody-has-it");
    let started = api.post(&format!("/containers/{id}/start"));
    if known {
        assert!(started.expect(400).message().contains("apparmor"));
        return;
    }
    started.expect(204);
    let inspect = api.inspect(&id);
    assert_eq!(inspect["AppArmorProfile"], "");
    assert_eq!(inspect["HostConfig"]["SecurityOpt"], json!(["apparmor=nobody-has-it"]));
    assert_eq!(in_container(&stack, "named", "echo entered"), "entered");
    let id = api.run("plain", &sleeper());
    assert_eq!(api.inspect(&id)["AppArmorProfile"], "");
}

#[test]
fn containers_and_execs_have_the_profile_that_is_named_or_docker_default() {
    let host = Confining::start("Y");
    let api = host.stack.api();
    let told = api.get("/info").expect(200).json()["SecurityOptions"].clone();
    assert_eq!(told[0], "name=apparmor");
    // What was said at create, what inspect says from the start on, and what the runtime was told.
    for (options, at_create, profile) in [
        (&[][..], "", "docker-default"),
        (&["apparmor=unconfined"], "unconfined", "unconfined"),
        (&["apparmor=a"], "a", "a"),
        (&["apparmor=a", "apparmor:b"], "b", "b"),
        (&["apparmor=a", "apparmor="], "", "docker-default"),
    ] {
        let id = api.create("c1", &host.body(&security(options)));
        assert_eq!(api.inspect(&id)["AppArmorProfile"], at_create, "{options:?}");
        api.post("/containers/c1/start").expect(204);
        assert_eq!(api.inspect(&id)["AppArmorProfile"], profile, "{options:?}");
        assert_eq!(in_container(&host.stack, "c1", "echo entered"), "entered");
        assert_eq!(host.told_runtime(), [profile, profile], "{options:?}");
        api.delete("/containers/c1?force=1").expect(204);
    }
    // Whether or not this host lets it start.
    let id = api.create("c1", &host.body(&json!({"HostConfig": {"Privileged": true}})));
    drop(api.post("/containers/c1/start"));
    assert_eq!(api.inspect(&id)["AppArmorProfile"], "unconfined");
    assert_eq!(host.told_runtime(), ["unconfined"]);
    api.delete("/containers/c1?force=1").expect(204);
    host.end();
}

#[test]
fn docker_default_is_loaded_at_the_engines_start_and_when_it_went() {
    let host = Confining::start("Y");
    let api = host.stack.api();
    assert_eq!(host.loaded(), "docker-default (enforce)\n");
    let text = host.told_parser();
    assert_eq!(text.matches("profile docker-default ").count(), 1, "{text}");
    api.run("c1", &host.body(&json!({})));
    in_container(&host.stack, "c1", "true");
    assert_eq!(host.told_parser(), "", "it was there");
    host.unload();
    in_container(&host.stack, "c1", "true");
    assert_eq!(host.loaded(), "docker-default (enforce)\n");
    host.unload();
    api.run("named", &host.body(&security(&["apparmor=a"])));
    assert_eq!(host.loaded(), "", "nobody needs it");
    api.run("d1", &host.body(&json!({})));
    assert_eq!(host.loaded(), "docker-default (enforce)\n");
    host.end();
}

#[test]
fn nothing_starts_without_the_profile_it_is_to_have() {
    let host = Confining::start("Y");
    let api = host.stack.api();
    let id = api.run("entered", &host.body(&json!({})));
    api.create("c1", &host.body(&json!({})));
    let refused = |why: &str| {
        host.unload();
        let message = api.post("/containers/c1/start").expect(500).message();
        let words = "AppArmor enabled on system but the docker-default profile could not be loaded: running `";
        assert!(message.starts_with(words) && message.ends_with(why), "{message}");
        let inspect = api.inspect("c1");
        assert_eq!(inspect["AppArmorProfile"], "");
        assert_eq!(inspect["State"]["ExitCode"], 128);
        assert_eq!(inspect["State"]["Error"], *message);
        let body = json!({"AttachStdout": true, "AttachStderr": true, "Cmd": ["true"]});
        let exec = api.post_json(&format!("/containers/{id}/exec"), &body).expect(201).json();
        let exec = exec["Id"].as_str().unwrap();
        let mut stream = api.hijack(&format!("/exec/{exec}/start"), Some(&json!({})), true);
        let (output, _) = stream.frames();
        assert!(output.starts_with(words) && output.trim_end().ends_with(why), "{output}");
        assert_eq!(api.get(&format!("/exec/{exec}/json")).expect(200).json()["ExitCode"], 126);
    };
    host.parser("echo some words; echo and more >&2; exit 3");
    refused("` failed with output: some words\nand more\n\nerror: exit status 3");
    fs::remove_file(host.stack.root().join("bin/apparmor_parser")).unwrap();
    refused("error: exec: \"apparmor_parser\": executable file not found in $PATH");
    // The daemon comes up, and what needs no parser starts.
    host.stack.stop_engine();
    host.start_engine();
    api.post("/containers/c1/start").expect(500);
    api.run("named", &host.body(&security(&["apparmor=a"])));
    host.end();
}

#[test]
fn a_kernel_that_does_not_enforce_is_told_of_and_no_more() {
    let host = Confining::start("N");
    let api = host.stack.api();
    assert_eq!(api.get("/info").expect(200).json()["SecurityOptions"][0], "name=apparmor");
    let id = api.run("c1", &host.body(&json!({})));
    assert_eq!(api.inspect(&id)["AppArmorProfile"], "docker-default");
    assert_eq!(host.told_runtime(), ["none"]);
    assert_eq!(host.told_parser(), "");
    host.end();
}

fn security(options: &[&str]) -> Value {
    json!({"HostConfig": {"SecurityOpt": options}})
}

/// A stack whose kernel seems to have AppArmor.
struct Confining {
    stack: Stack,
}

const MODULE: &str = "/sys/module";
const SECURITY: &str = "/sys/kernel/security";

impl Confining {
    fn start(enabled: &str) -> Self {
        let host = Self { stack: Stack::from_environment().with_busybox().start() };
        host.stack.stop_engine();
        for place in [MODULE, SECURITY] {
            host.stack.inside(&["mount", "-t", "tmpfs", "fake", place]).ok();
        }
        let sandbox = host.stack.sandbox();
        let parameters = sandbox.path(format!("{MODULE}/apparmor/parameters"));
        fs::create_dir_all(&parameters).unwrap();
        fs::write(parameters.join("enabled"), format!("{enabled}\n")).unwrap();
        fs::create_dir(sandbox.path(format!("{SECURITY}/apparmor"))).unwrap();
        host.unload();
        let notes = host.notes().display().to_string();
        // Dockerd gives it a file, and asks for its version before.
        host.parser(&format!(
            "case $1 in --version) echo AppArmor parser version 3.0.8; exit ;; esac
             shift; cat \"$@\" >>{notes}.parser; echo 'docker-default (enforce)' >>{SECURITY}/apparmor/profiles"
        ));
        let runtime = host.stack.root().join("bin/runc").display().to_string();
        host.script(
            "without-profile",
            &format!(
                "before=
                 for word; do
                   case $before in --bundle) file=$word/config.json ;; --process) file=$word ;; esac
                   before=$word
                 done
                 if [ -n \"$file\" ]; then
                   echo $(sed -n 's/.*\"apparmorProfile\":\"\\([^\"]*\\)\".*/\\1/p; t; $s/.*/none/p' $file) >>{notes}.runtime
                   sed -i 's/\"apparmorProfile\":\"[^\"]*\",//; s/,\"apparmorProfile\":\"[^\"]*\"//' $file
                 fi
                 exec {runtime} \"$@\""
            ),
        );
        host.start_engine();
        host
    }

    fn start_engine(&self) {
        let runtime = self.stack.root().join("bin/without-profile");
        self.stack.start_engine_with(&["--add-runtime", &format!("plain={}", runtime.display())]);
    }

    fn body(&self, more: &Value) -> Value {
        with(with(sleeper(), json!({"HostConfig": {"Runtime": "plain"}})), more.clone())
    }

    fn script(&self, name: &str, text: &str) {
        let place = self.stack.root().join("bin").join(name);
        fs::write(&place, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn parser(&self, text: &str) {
        self.script("apparmor_parser", text);
    }

    fn notes(&self) -> PathBuf {
        self.stack.root().join("log/notes")
    }

    fn take(&self, of: &str) -> String {
        let file = self.notes().with_extension(of);
        let text = fs::read_to_string(&file).unwrap_or_default();
        fs::write(file, "").unwrap();
        text
    }

    /// Profiles of creates and execs since the last call.
    fn told_runtime(&self) -> Vec<String> {
        self.take("runtime").lines().map(str::to_owned).collect()
    }

    fn told_parser(&self) -> String {
        self.take("parser")
    }

    fn profiles(&self) -> PathBuf {
        self.stack.sandbox().path(format!("{SECURITY}/apparmor/profiles"))
    }

    fn loaded(&self) -> String {
        fs::read_to_string(self.profiles()).unwrap()
    }

    fn unload(&self) {
        fs::write(self.profiles(), "").unwrap();
    }

    fn end(self) {
        let api = self.stack.api();
        for container in api.get("/containers/json?all=1").expect(200).json().as_array().unwrap() {
            let id = container["Id"].as_str().unwrap();
            api.delete(&format!("/containers/{id}?force=1")).expect(204);
        }
        self.stack.stop_engine();
        for place in [MODULE, SECURITY] {
            self.stack.inside(&["umount", place]).ok();
        }
        self.stack.start_engine();
        self.stack.end();
    }
}
