//! Mistakes in the arguments, told before or without an engine.

use integration_tests::pool::lease;

use crate::{assert_output, is_stock_client};

#[test]
fn unknown_and_wrong_flags_are_told_with_the_commands_usage() {
    let stack = lease();
    let run = "docker run";
    let run_usage = "[OPTIONS] IMAGE [COMMAND] [ARG...]";
    for (arguments, line, command, usage) in [
        (vec!["run", "--nope", "x"], "unknown flag: --nope", run, run_usage),
        (vec!["run", "-Z", "x"], "unknown shorthand flag: 'Z' in -Z", run, run_usage),
        (vec!["run", "--memory"], "flag needs an argument: --memory", run, run_usage),
        (vec!["run", "-e"], "flag needs an argument: 'e' in -e", run, run_usage),
        (
            vec!["run", "-m", "xyz", "x"],
            "invalid argument \"xyz\" for \"-m, --memory\" flag: invalid size: 'xyz'",
            run,
            run_usage,
        ),
        (
            vec!["run", "--cpus", "x", "x"],
            "invalid argument \"x\" for \"--cpus\" flag: failed to parse x as a rational number",
            run,
            run_usage,
        ),
        (
            vec!["run", "-e", "=x", "x"],
            "invalid argument \"=x\" for \"-e, --env\" flag: invalid environment variable: =x",
            run,
            run_usage,
        ),
        (
            vec!["run", "-l", "=x", "x"],
            "invalid argument \"=x\" for \"-l, --label\" flag: invalid label '=x': empty name",
            run,
            run_usage,
        ),
        (
            vec!["run", "-a", "foo", "x"],
            "invalid argument \"foo\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR",
            run,
            run_usage,
        ),
        (
            vec!["run", "--rm=maybe", "x"],
            "invalid argument \"maybe\" for \"--rm\" flag: strconv.ParseBool: parsing \"maybe\": invalid syntax",
            run,
            run_usage,
        ),
        (
            vec!["run", "--ulimit", "foo", "x"],
            "invalid argument \"foo\" for \"--ulimit\" flag: invalid ulimit argument: foo",
            run,
            run_usage,
        ),
        (
            vec!["run", "--dns", "x", "x"],
            "invalid argument \"x\" for \"--dns\" flag: IP address is not correctly formatted: x",
            run,
            run_usage,
        ),
        (
            vec!["run", "--add-host", "x", "x"],
            "invalid argument \"x\" for \"--add-host\" flag: bad format for add-host: \"x\"",
            run,
            run_usage,
        ),
        (
            vec!["stop", "-t", "x", "c"],
            "invalid argument \"x\" for \"-t, --timeout\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            "docker stop",
            "[OPTIONS] CONTAINER [CONTAINER...]",
        ),
        (
            vec!["ps", "-n", "x"],
            "invalid argument \"x\" for \"-n, --last\" flag: strconv.ParseInt: parsing \"x\": invalid syntax",
            "docker ps",
            "[OPTIONS]",
        ),
        (
            vec!["container", "ls", "-f", "x"],
            "invalid argument \"x\" for \"-f, --filter\" flag: bad format of filter (expected name=value)",
            "docker container ls",
            "[OPTIONS]",
        ),
        (vec!["ps", "-aqZ"], "unknown shorthand flag: 'Z' in -Z", "docker ps", "[OPTIONS]"),
        (vec!["ps", "--=x"], "bad flag syntax: --=x", "docker ps", "[OPTIONS]"),
        (
            vec!["attach", "--sig-proxy=x", "c"],
            "invalid argument \"x\" for \"--sig-proxy\" flag: strconv.ParseBool: parsing \"x\": invalid syntax",
            "docker attach",
            "[OPTIONS] CONTAINER",
        ),
        (vec!["--nope"], "unknown flag: --nope", "docker", "[OPTIONS] COMMAND [ARG...]"),
        (
            vec!["--config"],
            "flag needs an argument: --config",
            "docker",
            "[OPTIONS] COMMAND [ARG...]",
        ),
        (
            vec!["-H", "unix:///a", "-H", "unix:///b", "ps"],
            "invalid argument \"unix:///b\" for \"-H, --host\" flag: specify only one -H",
            "docker",
            "[OPTIONS] COMMAND [ARG...]",
        ),
    ] {
        let expected = format!(
            "{line}\n\nUsage:  {command} {usage}\n\nRun '{command} --help' for more information\n"
        );
        assert_output(&stack.docker(&arguments), 125, "", &expected);
    }
}

#[test]
fn too_few_and_too_many_arguments_are_counted() {
    let stack = lease();
    for (arguments, needs, command, usage, hint) in [
        (
            vec!["run"],
            "requires at least 1 argument",
            "docker run",
            "[OPTIONS] IMAGE [COMMAND] [ARG...]",
            "See",
        ),
        (
            vec!["create"],
            "requires at least 1 argument",
            "docker create",
            "[OPTIONS] IMAGE [COMMAND] [ARG...]",
            "See",
        ),
        (
            vec!["start"],
            "requires at least 1 argument",
            "docker start",
            "[OPTIONS] CONTAINER [CONTAINER...]",
            "See",
        ),
        (
            vec!["stop"],
            "requires at least 1 argument",
            "docker stop",
            "[OPTIONS] CONTAINER [CONTAINER...]",
            "See",
        ),
        (
            vec!["kill"],
            "requires at least 1 argument",
            "docker kill",
            "[OPTIONS] CONTAINER [CONTAINER...]",
            "See",
        ),
        (
            vec!["rm"],
            "requires at least 1 argument",
            "docker rm",
            "[OPTIONS] CONTAINER [CONTAINER...]",
            "See",
        ),
        (
            vec!["exec"],
            "requires at least 2 arguments",
            "docker exec",
            "[OPTIONS] CONTAINER COMMAND [ARG...]",
            "See",
        ),
        (
            vec!["exec", "c"],
            "requires at least 2 arguments",
            "docker exec",
            "[OPTIONS] CONTAINER COMMAND [ARG...]",
            "See",
        ),
        (
            vec!["inspect"],
            "requires at least 1 argument",
            "docker inspect",
            "[OPTIONS] NAME|ID [NAME|ID...]",
            "See",
        ),
        (
            vec!["rmi"],
            "requires at least 1 argument",
            "docker rmi",
            "[OPTIONS] IMAGE [IMAGE...]",
            "See",
        ),
        (vec!["logs"], "requires 1 argument", "docker logs", "[OPTIONS] CONTAINER", "Run"),
        (
            vec!["logs", "a", "b"],
            "requires 1 argument",
            "docker logs",
            "[OPTIONS] CONTAINER",
            "Run",
        ),
        (vec!["attach"], "requires 1 argument", "docker attach", "[OPTIONS] CONTAINER", "Run"),
        (vec!["pull"], "requires 1 argument", "docker pull", "[OPTIONS] NAME[:TAG|@DIGEST]", "Run"),
        (
            vec!["tag", "a"],
            "requires 2 arguments",
            "docker tag",
            "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
            "Run",
        ),
        (vec!["rename", "a"], "requires 2 arguments", "docker rename", "CONTAINER NEW_NAME", "Run"),
        (vec!["ps", "x"], "accepts no arguments", "docker ps", "[OPTIONS]", "Run"),
        (
            vec!["container", "ps", "x"],
            "accepts no arguments",
            "docker container ls",
            "[OPTIONS]",
            "Run",
        ),
        (vec!["events", "x"], "accepts no arguments", "docker events", "[OPTIONS]", "Run"),
        (vec!["version", "x"], "accepts no arguments", "docker version", "[OPTIONS]", "Run"),
        (vec!["info", "x"], "accepts no arguments", "docker info", "[OPTIONS]", "Run"),
    ] {
        let expected = format!(
            "docker: '{command}' {needs}\n\nUsage:  {command} {usage}\n\n{hint} '{command} --help' for more information\n"
        );
        assert_output(&stack.docker(&arguments), 1, "", &expected);
    }
}

#[test]
fn an_unknown_command_is_named_and_the_nearest_offered() {
    let stack = lease();
    let hint = "\nRun 'docker --help' for more information\n";
    let unknown = stack.docker(&["wibble"]);
    assert_output(&unknown, 1, "", &format!("docker: unknown command: docker wibble\n{hint}"));
    if is_stock_client() {
        return;
    }
    let near = stack.docker(&["log", "x"]);
    let expected =
        format!("docker: unknown command: docker log\n\nDid you mean: docker logs?\n{hint}");
    assert_output(&near, 1, "", &expected);
    let near = stack.docker(&["container", "strat"]);
    assert!(near.stderr.contains("\nDid you mean: docker container start?\n"), "{}", near.stderr);
    // Pasted from a web page.
    let dash = stack.docker(&["run", "–it", "busybox"]);
    assert_eq!(dash.code, 125);
    assert!(dash.stderr.contains("\"–it\" begins with a long dash"), "{}", dash.stderr);
}

#[test]
fn help_and_version_need_no_engine() {
    let stack = lease();
    let docker = |arguments: &[&str]| {
        let mut all = vec!["-H", "unix:///nowhere/x.sock"];
        all.extend(arguments);
        stack.docker(&all)
    };
    for arguments in [&["--help"][..], &["run", "--help"], &["help", "run"], &["ps", "-h"]] {
        let help = docker(arguments);
        assert_eq!(help.code, 0, "{arguments:?}");
        assert!(help.stdout.contains("Usage:"), "{arguments:?}: {}", help.stdout);
    }
    let nothing = stack.docker(&[]);
    assert_eq!((nothing.code, nothing.stdout.as_str()), (0, ""));
    assert!(nothing.stderr.contains("Usage:"), "{}", nothing.stderr);
    assert_output(&docker(&["help", "wibble"]), 1, "", "unknown help topic: wibble\n");
    for arguments in [["--version"], ["-v"]] {
        let version = stack.docker(&arguments).ok();
        assert!(version.starts_with("Docker version "), "{version}");
    }
}

#[test]
fn values_that_cannot_be_are_refused_before_a_container_is_made() {
    let stack = lease();
    for (arguments, text) in [
        (vec!["-p", "x:y"], "invalid containerPort: y"),
        (vec!["-p", "99999:80"], "invalid hostPort: 99999"),
        (vec!["-p", "1.2.3.4.5:80:80"], "invalid IP address: 1.2.3.4.5"),
        (vec!["-p", "80/ftp"], "invalid proto: ftp"),
        (
            vec!["-p", "7000-7002:80-81"],
            "invalid ranges specified for container and host Ports: 80-81 and 7000-7002",
        ),
        (vec!["-p", ""], "no port specified: <empty>"),
        (vec!["-v", ""], "invalid empty volume spec"),
        (vec!["--network", ""], "no name set for network"),
        (
            vec!["--pull", "sometimes"],
            "invalid pull option: 'sometimes': must be one of \"always\", \"missing\" or \"never\"",
        ),
        (
            vec!["--rm", "--restart", "always"],
            "conflicting options: cannot specify both --restart and --rm",
        ),
        (
            vec!["--restart", "on-failure:x"],
            "invalid restart policy format: maximum retry count must be an integer",
        ),
        (vec!["--env-file", "/nope"], "open /nope: no such file or directory"),
        (
            vec!["--expose", "x"],
            "invalid range format for --expose: x, error: strconv.ParseUint: parsing \"x\": invalid syntax",
        ),
        (vec!["--security-opt", "x"], "Invalid --security-opt: \"x\""),
    ] {
        let mut all = vec!["run"];
        all.extend(arguments);
        all.push("busybox");
        let expected = format!("docker: {text}{}", crate::RUN_HINT);
        assert_output(&stack.docker(&all), 125, "", &expected);
    }
    assert_output(
        &stack.docker(&["run", "-d", "-a", "stdout", "busybox"]),
        1,
        "",
        "conflicting options: cannot specify both --attach and --detach\n",
    );
    assert_output(
        &stack.docker(&["run", "-it", "busybox"]),
        1,
        "",
        "the input device is not a TTY\n",
    );
    assert_output(
        &stack.docker(&["run", "busyBox"]),
        125,
        "",
        &format!(
            "docker: invalid reference format: repository name (library/busyBox) must be lowercase{}",
            crate::RUN_HINT
        ),
    );
    assert_eq!(stack.docker_ok(&["ps", "-aq"]), "");
}
