//! Namespaces and rights: pid, ipc, uts, cgroup; capabilities, seccomp, privileged.

use integration_tests::pool::lease;
use serde_json::{Value, json};

use crate::{in_container, output, run, shell, sleeper, with};

fn host(script: &str, host: Value) -> Value {
    with(shell(script), json!({"HostConfig": host}))
}

const CAPS: &str = "grep CapEff /proc/self/status | cut -f2";

#[test]
fn capabilities_are_added_and_dropped() {
    let stack = lease();
    let caps = |options| output(&stack, &host(CAPS, options));
    assert_eq!(caps(json!({})), "00000000a80425fb");
    assert_eq!(caps(json!({"CapDrop": ["ALL"]})), "0000000000000000");
    assert_eq!(caps(json!({"CapAdd": ["NET_ADMIN"]})), "00000000a80435fb");
    assert_eq!(
        caps(json!({"CapAdd": ["CAP_SYS_TIME"], "CapDrop": ["chown", "MKNOD"]})),
        "00000000a20425fa"
    );
    let all = u64::from_str_radix(&caps(json!({"CapAdd": ["ALL"]})), 16).unwrap();
    let hosts = stack.inside(&["sh", "-c", CAPS]).ok();
    assert_eq!(all, u64::from_str_radix(hosts.trim(), 16).unwrap());
    let refused =
        stack.api().post_json("/containers/create", &host("true", json!({"CapAdd": ["NOPE"]})));
    assert!(refused.expect(400).message().to_lowercase().contains("nope"));
    // An ordinary user has none, but may gain those of the bounding set.
    let body = with(
        host("grep -E 'Cap(Eff|Bnd)' /proc/self/status | cut -f2", json!({})),
        json!({"User": "1:1"}),
    );
    assert_eq!(output(&stack, &body), "0000000000000000\n00000000a80425fb");
}

#[test]
fn seccomp_filters_unless_it_is_switched_off() {
    let stack = lease();
    let mode =
        |options| output(&stack, &host("grep Seccomp: /proc/self/status | cut -f2", options));
    assert_eq!(mode(json!({})), "2");
    assert_eq!(mode(json!({"SecurityOpt": ["seccomp=unconfined"]})), "0");
    assert_eq!(mode(json!({"Privileged": true})), "0");
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}]});
    let option = format!("seccomp={profile}");
    let (code, _, err) = run(&stack, &host("mkdir /x", json!({"SecurityOpt": [option]})));
    assert!(code != 0 && err.contains("No space left on device"), "{code} {err}");
    let refused = stack
        .api()
        .post_json("/containers/create", &host("true", json!({"SecurityOpt": ["nope=1"]})));
    assert!(refused.status >= 400 || stack.is_stock(), "{}", refused.text());
}

#[test]
fn no_new_privileges_is_passed_on() {
    let stack = lease();
    let read =
        |options| output(&stack, &host("grep NoNewPrivs /proc/self/status | cut -f2", options));
    assert_eq!(read(json!({})), "0");
    assert_eq!(read(json!({"SecurityOpt": ["no-new-privileges"]})), "1");
    assert_eq!(read(json!({"SecurityOpt": ["no-new-privileges:true"]})), "1");
}

#[test]
fn the_privileged_may_do_everything() {
    let stack = lease();
    let script = "ls /dev | grep -c -E '^(kmsg|mem)$'; grep ' /sys ' /proc/mounts | cut -d' ' -f4 | cut -d, -f1; mount -t tmpfs x /tmp && echo mounted; echo 1 > /proc/sys/net/ipv4/ip_forward && echo written";
    let out = output(&stack, &host(script, json!({"Privileged": true})));
    assert_eq!(out.split_whitespace().skip(1).collect::<Vec<_>>(), ["rw", "mounted", "written"]);
    assert!(out.starts_with('1') || out.starts_with('2'), "{out}");
    let (code, _, err) = run(&stack, &host("mount -t tmpfs x /tmp", json!({})));
    assert!(
        code != 0 && err.contains("ermission denied") || err.contains("not permitted"),
        "{code} {err}"
    );
}

#[test]
fn pid_namespaces_are_own_or_shared() {
    let stack = lease();
    let api = stack.api();
    assert_eq!(
        output(&stack, &host("exec cat /proc/self/stat", json!({}))).split(' ').next(),
        Some("1")
    );
    let names = output(
        &stack,
        &host("cat /proc/1/comm; ls -d /proc/[0-9]* | wc -l", json!({"PidMode": "host"})),
    );
    let init = stack.inside(&["cat", "/proc/1/comm"]).ok();
    assert!(names.starts_with(&init), "{names}");
    api.run("first", &sleeper());
    let shared = output(&stack, &host("cat /proc/1/comm", json!({"PidMode": "container:first"})));
    assert_eq!(shared, "sleep");
    let refused = api.post_json("/containers/create", &host("true", json!({"PidMode": "nope"})));
    assert!(refused.status >= 400, "{}", refused.text());
}

#[test]
fn ipc_namespaces_are_private_shareable_or_shared() {
    let stack = lease();
    let api = stack.api();
    let join = json!({"IpcMode": "container:first"});
    api.run("first", &with(sleeper(), json!({"HostConfig": {"IpcMode": "shareable"}})));
    in_container(&stack, "first", "echo shared > /dev/shm/f");
    assert_eq!(output(&stack, &host("cat /dev/shm/f", join.clone())), "shared");
    let own = in_container(&stack, "first", "readlink /proc/self/ns/ipc");
    assert_eq!(output(&stack, &host("readlink /proc/self/ns/ipc", join)), own);
    let host_ipc = output(&stack, &host("readlink /proc/self/ns/ipc", json!({"IpcMode": "host"})));
    assert_eq!(host_ipc, stack.inside(&["readlink", "/proc/self/ns/ipc"]).ok().trim());
}

#[test]
fn the_hosts_name_is_shared_when_asked() {
    let stack = lease();
    let own = stack.inside(&["hostname"]).ok();
    assert_eq!(output(&stack, &host("hostname", json!({"UTSMode": "host"}))), own.trim());
    let id = stack.api().create("", &shell("hostname"));
    stack.api().post(&format!("/containers/{id}/start")).expect(204);
    stack.api().wait(&id);
    assert_eq!(
        stack.api().get(&format!("/containers/{id}/logs?stdout=1")).expect(200).streams().0.trim(),
        &id[..12]
    );
}

#[test]
fn users_and_groups_are_looked_up_in_the_image() {
    let stack = lease();
    let id = |user: &str, more: Value| {
        output(
            &stack,
            &with(with(shell("id -u; id -g; id -G; echo $HOME"), json!({"User": user})), more),
        )
    };
    assert_eq!(id("daemon", json!({})), "1\n1\n1\n/usr/sbin");
    assert_eq!(id("1:65534", json!({})), "1\n65534\n65534\n/usr/sbin");
    assert_eq!(
        id("4242", json!({"HostConfig": {"GroupAdd": ["daemon", "77"]}})),
        "4242\n0\n0 1 77\n/"
    );
    let api = stack.api();
    let nobody = api.create("", &with(shell("true"), json!({"User": "nosuchuser"})));
    let refused = api.post(&format!("/containers/{nobody}/start"));
    assert!(
        refused.status >= 400
            && refused
                .message()
                .contains("unable to find user nosuchuser: no matching entries in passwd file"),
        "{}",
        refused.text()
    );
}
