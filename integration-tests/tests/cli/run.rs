//! Every flag of `run`, by what the container sees.

use std::fs;

use integration_tests::pool::lease;

use crate::{assert_output, shown};

#[test]
fn environment_directory_user_and_names() {
    let stack = lease();
    let script = "echo $A-$B-$C; pwd; id; hostname; echo $FROM_FILE $OTHER";
    let file = stack.root().join("env");
    fs::write(&file, "# a comment\n\nFROM_FILE=a b\nOTHER\n").unwrap();
    let file = file.to_str().unwrap();
    let mut command = stack.docker_command(&[
        "run",
        "--rm",
        "-e",
        "A=1",
        "--env",
        "B=x y",
        "-e",
        "C",
        "--env-file",
        file,
        "-w",
        "/tmp",
        "-u",
        "5:6",
        "-h",
        "host-name",
        "busybox",
        "sh",
        "-c",
        script,
    ]);
    let output = command.env("C", "ours").env("OTHER", "given").output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = stdout.lines().collect();
    let id = lines.get(2).unwrap();
    assert!(id.starts_with("uid=5 gid=6"), "{id}");
    assert_eq!(lines, ["1-x y-ours", "/tmp", id, "host-name", "a b given"]);
    // A variable of ours that is not there takes the engine's own away, and none that was given.
    let script = "env | grep -c -e ^A=1 -e ^HOSTNAME=";
    assert_eq!(shown(&stack, &["-e", "A=1", "-e", "A", "-e", "HOSTNAME"], script), "1");
    assert_eq!(shown(&stack, &["-u", "daemon"], "id -un"), "daemon");
}

#[test]
fn entrypoint_and_command() {
    let stack = lease();
    let run = |arguments: &[&str]| stack.docker_ok(&[&["run", "--rm"][..], arguments].concat());
    assert_eq!(run(&["--entrypoint", "echo", "busybox", "a", "-b", "--rm"]), "a -b --rm");
    assert_eq!(run(&["--entrypoint", "", "busybox", "echo", "x"]), "x");
    assert_eq!(run(&["--entrypoint=/bin/echo", "busybox"]), "");
}

#[test]
fn a_name_and_labels() {
    let stack = lease();
    let id = stack.docker_ok(&[
        "run", "-d", "--name", "cn", "-l", "a=b=c", "--label", "d", "busybox", "sleep", "1000",
    ]);
    assert_eq!(id.len(), 64, "{id}");
    assert_eq!(
        stack.docker_ok(&["inspect", "-f", "{{.Name}} {{.Id}} {{json .Config.Labels}}", "cn"]),
        format!("/cn {id} {{\"a\":\"b=c\",\"d\":\"\"}}")
    );
    assert_eq!(stack.docker_ok(&["rm", "-f", "cn"]), "cn");
}

#[test]
fn volumes_are_binds_named_or_anonymous() {
    let stack = lease();
    let bind = stack.root().join("bind");
    fs::create_dir(&bind).unwrap();
    fs::write(bind.join("in"), "given").unwrap();
    let spec = format!("{}:/b", bind.display());
    assert_eq!(shown(&stack, &["-v", &spec], "cat /b/in; echo back >/b/out"), "given");
    assert_eq!(fs::read_to_string(bind.join("out")).unwrap(), "back\n");
    let read_only = shown(&stack, &["-v", &format!("{spec}:ro")], "touch /b/x 2>&1; true");
    assert_eq!(read_only, "touch: /b/x: Read-only file system");
    assert_eq!(shown(&stack, &["-v", "named:/v"], "echo kept >/v/f"), "");
    assert_eq!(shown(&stack, &["-v", "named:/w"], "cat /w/f"), "kept");
    // An anonymous one is gone with --rm.
    assert_eq!(shown(&stack, &["-v", "/anonymous"], "grep -c ' /anonymous ' /proc/mounts"), "1");
    let api = stack.api();
    let volumes = api.get("/volumes").expect(200).json();
    let names: Vec<&str> = volumes["Volumes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["Name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["named"]);
    api.delete("/volumes/named").expect(204);
    // A relative source is below the client's directory.
    let mut command =
        stack.docker_command(&["run", "--rm", "-v", "./bind:/b", "busybox", "cat", "/b/in"]);
    let output = command.current_dir(stack.root()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "given");
}

#[test]
fn limits_reach_the_engine() {
    let stack = lease();
    let name = "limited";
    stack.docker_ok(&[
        "create",
        "--name",
        name,
        "-m",
        "64m",
        "--memory-swap",
        "128m",
        "--cpus",
        "1.5",
        "--cpu-shares",
        "512",
        "--pids-limit",
        "33",
        "--shm-size",
        "1m",
        "--ulimit",
        "nofile=100:200",
        "--restart",
        "on-failure:3",
        "--stop-signal",
        "INT",
        "--stop-timeout",
        "3",
        "busybox",
    ]);
    let format = "{{with .HostConfig}}{{.Memory}} {{.MemorySwap}} {{.NanoCpus}} {{.CpuShares}} \
        {{.PidsLimit}} {{.ShmSize}} {{json .Ulimits}} {{.RestartPolicy.Name}} \
        {{.RestartPolicy.MaximumRetryCount}}{{end}} {{.Config.StopSignal}} {{.Config.StopTimeout}}";
    let shown = stack.docker_ok(&["inspect", "-f", format, name]);
    assert_eq!(
        shown,
        "67108864 134217728 1500000000 512 33 1048576 \
         [{\"Name\":\"nofile\",\"Hard\":200,\"Soft\":100}] on-failure 3 INT 3"
    );
    stack.docker_ok(&["rm", name]);
}

#[test]
fn privilege_and_capabilities() {
    let stack = lease();
    let capabilities = "grep CapEff /proc/self/status | cut -f2";
    let plain = shown(&stack, &[], capabilities);
    assert_eq!(plain, "00000000a80425fb");
    let dropped = shown(&stack, &["--cap-drop", "ALL", "--cap-add", "net_raw"], capabilities);
    assert_eq!(dropped, "0000000000002000");
    // Stock refuses capabilities that the host has not got.
    if !stack.is_stock() {
        let all = shown(&stack, &["--privileged"], capabilities);
        assert_ne!(all, plain);
        assert_eq!(shown(&stack, &["--privileged"], "grep -c ^Seccomp:.0 /proc/self/status"), "1");
    }
    assert_eq!(
        shown(&stack, &["--read-only"], "touch /x 2>&1; true"),
        "touch: /x: Read-only file system"
    );
}

#[test]
fn networks_and_ports() {
    let stack = lease();
    assert_eq!(shown(&stack, &["--network", "none"], "ls /sys/class/net"), "lo");
    assert_eq!(
        shown(&stack, &["--network=bridge"], "ls -d /sys/class/net/eth0"),
        "/sys/class/net/eth0"
    );
    stack.docker_ok(&[
        "run",
        "-d",
        "--name",
        "cp",
        "-p",
        "127.0.0.1:8080:80",
        "-p",
        "127.0.0.1::90/udp",
        "busybox",
        "sleep",
        "1000",
    ]);
    assert_eq!(stack.docker_ok(&["port", "cp", "80"]), "127.0.0.1:8080");
    let all = stack.docker_ok(&["port", "cp"]);
    let lines: Vec<&str> = all.lines().collect();
    assert_eq!(lines.len(), 2, "{all}");
    assert_eq!(lines[0], "80/tcp -> 127.0.0.1:8080");
    assert!(lines[1].starts_with("90/udp -> 127.0.0.1:"), "{all}");
    assert_output(
        &stack.docker(&["port", "cp", "81"]),
        1,
        "",
        "Error: No public port '81' published for cp\n",
    );
    let taken = stack.docker(&["run", "--rm", "-p", "127.0.0.1:8080:80", "busybox"]);
    assert_eq!(taken.code, 125);
    assert!(taken.stderr.starts_with("docker: Error response from daemon: "), "{}", taken.stderr);
    stack.docker_ok(&["rm", "-f", "cp"]);
    assert_eq!(stack.docker_ok(&["ps", "-aq"]), "");
}

#[test]
fn a_cidfile_is_written_and_never_overwritten() {
    let stack = lease();
    let path = stack.root().join("cid");
    let file = path.to_str().unwrap();
    let id = stack.docker_ok(&["run", "-d", "--rm", "--cidfile", file, "busybox", "sleep", "1000"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), id);
    let again = stack.docker(&["run", "--rm", "--cidfile", file, "busybox"]);
    let text = format!(
        "docker: container ID file found, make sure the other container isn't running or delete {file}"
    );
    assert_output(&again, 125, "", &format!("{text}{}", crate::RUN_HINT));
    stack.docker_ok(&["rm", "-f", &id]);
}

#[test]
fn switches_may_be_given_a_value_and_the_last_flag_counts() {
    let stack = lease();
    let run = |arguments: &[&str]| stack.docker_ok(&[&["run"][..], arguments].concat());
    assert_eq!(run(&["--rm=false", "--rm=true", "-h", "a", "-h=b", "busybox", "hostname"]), "b");
    assert_eq!(run(&["-it=false", "--rm", "busybox", "echo", "x"]), "x");
    let id = run(&["--detach=1", "--rm=0", "busybox", "true"]);
    assert_eq!(stack.docker_ok(&["wait", &id]), "0");
    assert_eq!(stack.docker_ok(&["container", "rm", &id]), id);
    assert_eq!(stack.docker_ok(&["container", "ls", "-aq"]), "");
}
