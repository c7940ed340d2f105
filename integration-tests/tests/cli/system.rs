//! `version`, `info` and `events`.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use integration_tests::pool::lease;
use integration_tests::{Output, parts};

use crate::assert_output;

#[test]
fn version_and_info_can_be_read_by_scripts() {
    let stack = lease();
    let api = stack.api();
    let version = api.get("/version").expect(200).json();
    let info = api.get("/info").expect(200).json();
    let docker = |arguments: &[&str]| stack.docker_ok(arguments);
    assert_eq!(
        docker(&["version", "-f", "{{.Server.Version}}"]),
        version["Version"].as_str().unwrap()
    );
    assert_eq!(docker(&["version", "--format", "{{.Server.Os}} {{.Client.Os}}"]), "linux linux");
    let client = docker(&["version", "--format", "{{.Client.APIVersion}}"]);
    let server = version["ApiVersion"].as_str().unwrap();
    let newest = |text: &str| text.split('.').map(|n| n.parse().unwrap()).collect::<Vec<u32>>();
    assert_eq!(newest(&client), newest(server).min(newest("1.51")), "the older one is spoken");
    let both: serde_json::Value =
        serde_json::from_str(&docker(&["version", "--format", "json"])).unwrap();
    assert_eq!(both["Server"]["Version"], version["Version"]);
    assert_eq!(
        docker(&["info", "-f", "{{.Driver}} {{.NCPU}}"]),
        format!("{} {}", info["Driver"].as_str().unwrap(), info["NCPU"])
    );
    assert_eq!(docker(&["info", "--format", "{{json .Plugins.Volume}}"]), "[\"local\"]");
    let all: serde_json::Value =
        serde_json::from_str(&docker(&["system", "info", "-f", "json"])).unwrap();
    assert_eq!(all["ID"], info["ID"]);
    let text = docker(&["version"]);
    for part in [
        "Client:",
        "\n Version: ",
        "\n API version: ",
        "\n OS/Arch: ",
        "\n\nServer:",
        "\n Engine:\n  Version: ",
        "\n containerd:\n",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let text = docker(&["info"]);
    for part in [
        "Client:",
        "\nServer:\n Containers: ",
        "\n Storage Driver: ",
        "\n Logging Driver: json-file\n",
        "\n Docker Root Dir: ",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    let spoken = stack
        .docker_command(&["version", "-f", "{{.Client.APIVersion}}"])
        .env("DOCKER_API_VERSION", "1.40")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8(spoken.stdout).unwrap(), "1.40\n");
}

#[test]
fn events_are_printed_as_they_come_and_can_be_asked_for_later() {
    let stack = lease();
    let mut follower = stack
        .docker_command(&[
            "events",
            "--since",
            "0",
            "--filter",
            "container=ev",
            "--format",
            "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let id = stack.docker_ok(&["create", "--name", "ev", "busybox", "true"]);
    assert_eq!(lines.next().unwrap().unwrap(), "container create ev");
    stack.docker_ok(&["start", "-a", "ev"]);
    stack.docker_ok(&["rm", "ev"]);
    let mut seen = Vec::new();
    for line in lines.by_ref() {
        seen.push(line.unwrap().rsplit_once(' ').unwrap().0.to_owned());
        if seen.last().unwrap() == "container destroy" {
            break;
        }
    }
    assert_eq!(seen, ["container attach", "container start", "container die", "container destroy"]);
    follower.kill().unwrap();
    follower.wait().unwrap();

    let past = |format: &[&str]| {
        let fixed = [
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            "container=ev",
            "-f",
            "event=die",
        ];
        stack.docker_ok(&[&fixed[..], format].concat())
    };
    let sentence = past(&[]);
    let (time, rest) = sentence.split_once(' ').unwrap();
    assert_eq!(&time[10..11], "T");
    let head = format!("container die {id} (");
    assert!(rest.starts_with(&head), "{rest}");
    assert!(
        rest.contains("exitCode=0") && rest.contains("image=busybox") && rest.ends_with("name=ev)"),
        "{rest}"
    );
    let json: serde_json::Value = serde_json::from_str(&past(&["--format", "json"])).unwrap();
    assert_eq!(json["Action"], "die");
    assert_eq!(json["Actor"]["ID"], id.as_str());
    assert_eq!(past(&["--format", "{{.Status}} {{.ID}}"]), format!("die {id}"));
    let wrong = stack.docker(&["events", "--since", "x"]);
    assert_output(&wrong, 1, "", "failed to parse value as time or duration: \"x\"\n");
}

#[test]
fn info_counts_containers_by_state_and_images() {
    let stack = lease();
    let counts = || {
        stack.docker_ok(&[
            "info",
            "-f",
            "{{.Containers}} {{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}} {{.Images}}",
        ])
    };
    assert_eq!(counts(), "0 0 0 0 1");
    for name in ["i1", "i2", "i3"] {
        stack.docker_ok(&["run", "-d", "--name", name, "busybox", "sleep", "1000"]);
    }
    stack.docker_ok(&["create", "--name", "i4", "busybox"]);
    stack.docker_ok(&["run", "--name", "i5", "busybox", "true"]);
    stack.docker_ok(&["pause", "i3"]);
    assert_eq!(counts(), "5 2 1 2 1");
    let text = stack.docker_ok(&["info"]);
    let told = " Containers: 5\n  Running: 2\n  Paused: 1\n  Stopped: 2\n Images: 1\n";
    assert!(text.contains(told), "{text}");
    // Another name is no other image.
    stack.docker_ok(&["tag", "busybox", "counted:1"]);
    stack.docker_ok(&["unpause", "i3"]);
    stack.docker_ok(&["kill", "i1"]);
    stack.docker_ok(&["wait", "i1"]);
    assert_eq!(counts(), "5 2 0 3 1");
    stack.docker_ok(&["rmi", "counted:1"]);
    stack.docker_ok(&["rm", "-f", "i1", "i2", "i3", "i4", "i5"]);
    assert_eq!(counts(), "0 0 0 0 1");
}

/// What is refused at once is heard by a client that is still sending.
#[test]
fn the_stock_client_hears_why_nothing_is_built_or_loaded() {
    let stack = lease();
    let context = stack.root().join("context");
    fs::create_dir(&context).unwrap();
    fs::write(context.join("Dockerfile"), "FROM busybox\n").unwrap();
    let file = context.join("file");
    let stock_client = |arguments: &[&str]| {
        let template = stack.docker_command(&[]);
        let variables = template.get_envs().filter_map(|(name, value)| Some((name, value?)));
        let mut command = Command::new(parts::peer("docker"));
        Output::from(command.env_clear().envs(variables).args(arguments).output().unwrap())
    };
    for size in [600, 20_000_000] {
        fs::write(&file, vec![b'x'; size]).unwrap();
        let build = stock_client(&["build", context.to_str().unwrap()]);
        let load = stock_client(&["load", "-i", file.to_str().unwrap()]);
        if stack.is_stock() {
            assert!(build.ok().contains("\nSuccessfully built "));
            let reason =
                "Error processing tar file(exit status 1): archive/tar: invalid tar header\n";
            assert_eq!((load.code, &*load.stderr), (1, reason));
            continue;
        }
        // Before that it may complain of what it could not send.
        let last = |output: &Output| output.stderr.lines().last().unwrap_or_default().to_owned();
        let refusal = "Error response from daemon: build is not supported yet";
        assert_eq!((build.code, &*last(&build)), (1, refusal));
        let reason = "Error response from daemon: read archive: numeric field was not a number: ";
        assert!(load.code == 1 && last(&load).starts_with(reason), "{}", load.stderr);
    }
    fs::remove_dir_all(context).unwrap();
}
