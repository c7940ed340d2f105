//! Exit codes: the container's own, those of failures, and those of signals.

use integration_tests::pool::lease;

use crate::{RUN_HINT, assert_output};

#[test]
fn run_gives_the_containers_exit_code_and_keeps_its_streams_apart() {
    let stack = lease();
    let run = |script: &str| stack.docker(&["run", "--rm", "busybox", "sh", "-c", script]);
    assert_output(&run("echo out; echo err >&2; exit 7"), 7, "out\n", "err\n");
    assert_output(&run("exit 255"), 255, "", "");
    assert_output(&run("(sleep 99 & kill -9 $!; wait $!) 2>&-"), 137, "", "");
    assert_output(&run("(sleep 99 & kill $!; wait $!) 2>&-"), 143, "", "");
    assert_eq!(stack.docker_ok(&["ps", "-aq"]), "", "--rm cleans up");
}

#[test]
fn a_command_that_cannot_be_started_is_127_or_126() {
    let stack = lease();
    for (command, code, text) in [
        ("nosuch", 127, "exec: \"nosuch\": executable file not found in $PATH"),
        ("/nosuch", 127, "no such file or directory"),
        ("/etc", 126, "permission denied"),
    ] {
        let output = stack.docker(&["run", "--rm", "busybox", command]);
        assert_eq!((output.code, output.stdout.as_str()), (code, ""), "{}", output.stderr);
        let (first, rest) = output.stderr.split_once('\n').unwrap();
        assert!(first.starts_with("docker: Error response from daemon: "), "{first}");
        assert!(first.contains(text), "{first}");
        assert_eq!(format!("\n{rest}"), RUN_HINT);
    }
    // Without --rm the container stays, as created, with the code.
    let output = stack.docker(&["run", "--name", "stays", "busybox", "nosuch"]);
    assert_eq!(output.code, 127);
    let state =
        stack.docker_ok(&["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "stays"]);
    assert_eq!(state, "created 127");
    stack.docker_ok(&["rm", "stays"]);
    assert_eq!(stack.docker_ok(&["ps", "-aq"]), "");
}

#[test]
fn a_failure_of_the_engine_is_125() {
    let stack = lease();
    stack.docker_ok(&["create", "--name", "taken", "busybox"]);
    let output = stack.docker(&["run", "--name", "taken", "busybox"]);
    assert_eq!((output.code, output.stdout.as_str()), (125, ""));
    let text = "docker: Error response from daemon: Conflict. The container name \"/taken\" is already in use by container \"";
    assert!(output.stderr.starts_with(text), "{}", output.stderr);
    assert!(output.stderr.ends_with(RUN_HINT), "{}", output.stderr);
    // `create` says the same in fewer words, and 1.
    let output = stack.docker(&["create", "--name", "taken", "busybox"]);
    assert_eq!(output.code, 1);
    assert!(
        output.stderr.starts_with("Error response from daemon: Conflict. "),
        "{}",
        output.stderr
    );
    stack.docker_ok(&["rm", "taken"]);

    let output = stack.docker(&["run", "--rm", "--network", "nosuch", "busybox"]);
    let text = format!("docker: Error response from daemon: network nosuch not found{RUN_HINT}");
    assert_output(&output, 125, "", &text);
    let output = stack.docker(&["run", "--rm", "--pull", "never", "nosuch"]);
    let text =
        format!("docker: Error response from daemon: No such image: nosuch:latest{RUN_HINT}");
    assert_output(&output, 125, "", &text);
    let output = stack.docker(&["run", "--rm", "-u", "nosuch", "busybox"]);
    let text = format!(
        "docker: Error response from daemon: unable to find user nosuch: no matching entries in passwd file{RUN_HINT}"
    );
    assert_output(&output, 125, "", &text);
    assert_eq!(stack.docker_ok(&["ps", "-aq"]), "");
}

#[test]
fn without_an_engine_the_socket_is_named() {
    let stack = lease();
    let text = "Cannot connect to the Docker daemon at unix:///nowhere/x.sock. Is the docker daemon running?";
    let at = ["-H", "unix:///nowhere/x.sock"];
    let docker = |arguments: &[&str]| stack.docker(&[&at[..], arguments].concat());
    assert_output(&docker(&["ps"]), 1, "", &format!("{text}\n"));
    assert_output(&docker(&["run", "busybox"]), 125, "", &format!("docker: {text}{RUN_HINT}"));
    let version = docker(&["version"]);
    assert_eq!((version.code, version.stderr), (1, format!("{text}\n")));
    assert!(version.stdout.starts_with("Client:"), "{}", version.stdout);
    // The variable counts where no flag is given, and the flag before it.
    let by_variable = |arguments: &[&str]| {
        let mut command = stack.docker_command(arguments);
        command.env("DOCKER_HOST", "unix:///nowhere/x.sock").output().unwrap()
    };
    assert_eq!(String::from_utf8(by_variable(&["ps"]).stderr).unwrap(), format!("{text}\n"));
    let host = format!("unix://{}", stack.socket().display());
    assert!(by_variable(&["-H", &host, "ps"]).status.success());
    let none = stack.docker(&["-H", "bar://x", "ps"]);
    let text = "Failed to initialize: unable to resolve docker endpoint: invalid bind address format: bar://x\n";
    assert_output(&none, 1, "", text);
}

#[test]
fn exec_gives_the_commands_exit_code() {
    let stack = lease();
    stack.docker_ok(&["run", "-d", "--name", "ce", "busybox", "sleep", "1000"]);
    let exec = |script: &str| stack.docker(&["exec", "ce", "sh", "-c", script]);
    assert_output(&exec("echo o; echo e >&2; exit 5"), 5, "o\n", "e\n");
    assert_output(&exec("kill -9 $$"), 137, "", "");
    let missing = stack.docker(&["exec", "ce", "nosuch"]);
    assert!([126, 127].contains(&missing.code), "{}", missing.code);
    let told = format!("{}{}", missing.stdout, missing.stderr);
    assert!(told.contains("exec: \"nosuch\": executable file not found in $PATH"), "{told}");
    let absent = stack.docker(&["exec", "nope", "ls"]);
    assert_output(&absent, 1, "", "Error response from daemon: No such container: nope\n");
    assert_output(
        &stack.docker(&["exec", "-it", "ce", "ls"]),
        1,
        "",
        "the input device is not a TTY\n",
    );
    stack.docker_ok(&["rm", "-f", "ce"]);
    assert_eq!(stack.docker(&["exec", "ce", "ls"]).code, 1);
}
