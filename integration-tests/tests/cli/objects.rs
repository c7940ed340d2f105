//! Volumes, networks, mounts, limits that change, and what prunes leave: by what is there
//! afterwards. How the commands print is in `same.rs`.

use std::fs;

use integration_tests::pool::lease;

use crate::{RUN_HINT, assert_output, shown};

#[test]
fn mounts_are_binds_volumes_and_memory() {
    let stack = lease();
    let bind = stack.root().join("mounted");
    fs::create_dir(&bind).unwrap();
    fs::write(bind.join("in"), "given").unwrap();
    let source = format!("type=bind,source={},target=/b,readonly", bind.display());
    let script = "cat /b/in; touch /b/x 2>&1; true";
    assert_eq!(
        shown(&stack, &["--mount", &source], script),
        "giventouch: /b/x: Read-only file system"
    );
    assert_eq!(shown(&stack, &["--mount", "src=kept,dst=/v"], "echo kept >/v/f"), "");
    assert_eq!(shown(&stack, &["--mount", "type=volume,src=kept,dst=/w"], "cat /w/f"), "kept");
    assert_eq!(stack.docker_ok(&["volume", "rm", "kept"]), "kept");
    let tmpfs = "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1700";
    let options = shown(&stack, &["--mount", tmpfs], "grep ' /t ' /proc/mounts; stat -c %a /t");
    assert!(options.starts_with("tmpfs /t tmpfs rw,nosuid,nodev,noexec,relatime"), "{options}");
    assert!(options.contains("size=1024k") && options.ends_with("\n1700"), "{options}");
    // A relative source is below the client's directory.
    let mut command = stack.docker_command(&[
        "run",
        "--rm",
        "--mount",
        "type=bind,src=./mounted,dst=/b",
        "busybox",
        "cat",
        "/b/in",
    ]);
    let output = command.current_dir(stack.root()).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "given");
    let absent = stack.docker(&["run", "--rm", "--mount", "type=bind,src=/nope,dst=/m", "busybox"]);
    let text = "docker: Error response from daemon: invalid mount config for type \"bind\": bind source path does not exist: /nope";
    assert_output(&absent, 125, "", &format!("{text}{RUN_HINT}"));
}

#[test]
fn volumes_are_made_listed_and_removed() {
    let stack = lease();
    let volume = |arguments: &[&str]| stack.docker(&[&["volume"][..], arguments].concat());
    assert_output(&volume(&["create", "v10", "--label", "a=b"]), 0, "v10\n", "");
    assert_output(&volume(&["create", "v2"]), 0, "v2\n", "");
    let anonymous = volume(&["create"]).ok();
    assert_eq!(anonymous.trim_end().len(), 64, "{anonymous}");
    let named = ["ls", "-f", "name=v"];
    assert_output(&volume(&named), 0, "DRIVER    VOLUME NAME\nlocal     v2\nlocal     v10\n", "");
    assert_eq!(volume(&["ls", "-qf", "label=a=b"]).ok(), "v10\n");
    let json: serde_json::Value = serde_json::from_str(&volume(&["inspect", "v10"]).ok()).unwrap();
    assert_eq!((&json[0]["Name"], &json[0]["Labels"]["a"]), (&"v10".into(), &"b".into()));
    stack.docker_ok(&["create", "--name", "uses", "-v", "v2:/v", "busybox"]);
    let used = volume(&["rm", "v2", "v10"]);
    assert_eq!((used.code, used.stdout.as_str()), (1, "v10\n"));
    assert!(used.stderr.starts_with("Error response from daemon: remove v2: "), "{}", used.stderr);
    // What has no name goes first, and nobody is asked with -f.
    let kept = volume(&["prune", "-f"]).ok();
    let line = format!("Deleted Volumes:\n{anonymous}\nTotal reclaimed space: 0B\n");
    assert_eq!(kept, line);
    assert_eq!(volume(&["ls", "-q"]).ok(), "v2\n");
    stack.docker_ok(&["rm", "uses"]);
    assert_eq!(volume(&["rm", "v2"]).ok(), "v2\n");
    assert_eq!(volume(&["rm", "-f", "v2"]).ok(), "v2\n", "gone is gone");
}

#[test]
fn networks_are_listed_and_inspected() {
    let stack = lease();
    let table = stack.docker_ok(&["network", "ls"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NETWORK", "ID", "NAME", "DRIVER", "SCOPE"]);
    let rows: Vec<&[&str]> = lines[1..].iter().map(|line| &line[1..]).collect();
    assert_eq!(
        rows,
        [["bridge", "bridge", "local"], ["host", "host", "local"], ["none", "null", "local"]]
    );
    let id = stack.docker_ok(&["network", "ls", "-qf", "name=bridge"]);
    let full = stack.docker_ok(&["network", "ls", "-q", "--no-trunc", "-f", "name=bridge"]);
    assert_eq!((id.len(), full.len(), full.starts_with(&id)), (12, 64, true));
    let format = "{{.Name}} {{.Id}} {{.Driver}}";
    let shown = stack.docker_ok(&["network", "inspect", "-f", format, "bridge"]);
    assert_eq!(shown, format!("bridge {full} bridge"));
    let missing = stack.docker(&["network", "inspect", "nope"]);
    assert_output(&missing, 1, "[]\n", "Error response from daemon: network nope not found\n");
}

#[test]
fn a_prune_asks_first_and_takes_what_nobody_uses() {
    let stack = lease();
    stack.docker_ok(&["run", "-d", "--name", "stays", "busybox", "sleep", "1000"]);
    let gone = stack.docker_ok(&["create", "--name", "goes", "busybox"]);
    let question = "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ";
    for answer in [&b""[..], b"n\n", b"yes\n"] {
        let asked = stack.docker_with(&["container", "prune"], answer);
        assert_output(&asked, 0, question, "");
    }
    let pruned = stack.docker_with(&["container", "prune"], b"y\n");
    // How much that is depends on how the engine counts directories.
    let report = format!("{question}Deleted Containers:\n{gone}\n\nTotal reclaimed space: ");
    assert_eq!((pruned.code, pruned.stderr.as_str()), (0, ""));
    assert!(pruned.stdout.starts_with(&report), "{}", pruned.stdout);
    assert_eq!(stack.docker_ok(&["ps", "-a", "--format", "{{.Names}}"]), "stays");
    // An image with a container stays, another name of it does not.
    stack.docker_ok(&["tag", "busybox", "pruned:1"]);
    let images = stack.docker_ok(&["image", "prune", "-f"]);
    assert_eq!(images, "Total reclaimed space: 0B", "nothing hangs loose");
    assert_eq!(stack.docker_ok(&["network", "prune", "-f"]), "");
    stack.docker_ok(&["rmi", "pruned:1"]);
    stack.docker_ok(&["rm", "-f", "stays"]);
}

#[test]
fn limits_of_a_running_container_are_changed() {
    let stack = lease();
    for name in ["up1", "up2"] {
        stack.docker_ok(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]);
    }
    let update = stack.docker(&[
        "update",
        "-m",
        "64m",
        "--memory-swap",
        "128m",
        "--cpu-shares",
        "512",
        "--restart",
        "on-failure:2",
        "up1",
        "nope",
        "up2",
    ]);
    assert_output(
        &update,
        1,
        "up1\nup2\n",
        "Error response from daemon: No such container: nope\n",
    );
    let format = "{{with .HostConfig}}{{.Memory}} {{.MemorySwap}} {{.CpuShares}} {{.RestartPolicy.Name}} {{.RestartPolicy.MaximumRetryCount}}{{end}}";
    for name in ["up1", "up2"] {
        let shown = stack.docker_ok(&["inspect", "-f", format, name]);
        assert_eq!(shown, "67108864 134217728 512 on-failure 2");
    }
    let nothing = stack.docker(&["container", "update", "up1"]);
    assert_output(&nothing, 1, "", "you must provide one or more flags when using this command\n");
    stack.docker_ok(&["rm", "-f", "up1", "up2"]);
}

#[test]
fn labels_come_from_files_too() {
    let stack = lease();
    let file = stack.root().join("labels");
    fs::write(&file, "# none\n\na=of the file\nb\nc=3\n").unwrap();
    let file = file.to_str().unwrap();
    stack.docker_ok(&["create", "--name", "lf", "--label-file", file, "-l", "a=given", "busybox"]);
    let labels = stack.docker_ok(&["inspect", "-f", "{{json .Config.Labels}}", "lf"]);
    assert_eq!(labels, "{\"a\":\"given\",\"b\":\"\",\"c\":\"3\"}");
    stack.docker_ok(&["rm", "lf"]);
    fs::write(file, "=x\n").unwrap();
    let wrong = stack.docker(&["run", "--label-file", file, "busybox"]);
    let text = format!("docker: invalid env file ({file}): no variable name on line '=x'");
    assert_output(&wrong, 125, "", &format!("{text}{RUN_HINT}"));
}
