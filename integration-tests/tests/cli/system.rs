//! `version`, `info` and `events`.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use integration_tests::pool::lease;

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
