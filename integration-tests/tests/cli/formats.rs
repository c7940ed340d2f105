//! `--format`: tables, templates and JSON, and what is said of wrong ones.

use integration_tests::client::VERSION;
use integration_tests::pool::lease;

use crate::assert_output;

#[test]
fn tables_have_headings_and_columns() {
    let stack = lease();
    let empty = stack.docker_ok(&["ps"]);
    assert_eq!(empty, "CONTAINER ID   IMAGE     COMMAND   CREATED   STATUS    PORTS     NAMES");
    let id = stack.docker_ok(&[
        "run",
        "-d",
        "--name",
        "tabled",
        "-p",
        "127.0.0.1:8081:80",
        "busybox",
        "sleep",
        "1000",
    ]);
    let table = stack.docker_ok(&["ps"]);
    let lines: Vec<&str> = table.lines().collect();
    let column = |heading: &str| lines[0].find(heading).unwrap();
    let cell = |from: &str, to: &str| lines[1][column(from)..column(to)].trim_end();
    assert_eq!(cell("CONTAINER ID", "IMAGE"), &id[..12]);
    assert_eq!(cell("IMAGE", "COMMAND"), "busybox");
    assert_eq!(cell("COMMAND", "CREATED"), "\"sleep 1000\"");
    assert!(cell("STATUS", "PORTS").starts_with("Up "), "{table}");
    assert_eq!(cell("PORTS", "NAMES"), "127.0.0.1:8081->80/tcp");
    assert_eq!(&lines[1][column("NAMES")..], "tabled");
    for format in ["table", ""] {
        let same = stack.docker_ok(&["ps", "--format", format]);
        // The columns are as wide as the time that has gone by.
        let headings = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(same.lines().next().map(headings), Some(headings(lines[0])), "{format:?}");
    }
    let own = stack.docker_ok(&["ps", "--format", "table {{.Names}}\\t{{.Image}} {{.ID}}"]);
    assert_eq!(own, format!("NAMES     IMAGE CONTAINER ID\ntabled    busybox {}", &id[..12]));
    assert_eq!(stack.docker_ok(&["ps", "--format", "table{{.Names}}"]), "NAMES\ntabled");
    let raw = stack.docker_ok(&["ps", "--format", "raw"]);
    assert!(
        raw.starts_with(&format!(
            "container_id: {}\nimage: busybox\ncommand: \"sleep 1000\"\ncreated_at: ",
            &id[..12]
        )),
        "{raw}"
    );
    assert!(raw.contains("\nstate: running\nstatus: Up "), "{raw}");
    stack.docker_ok(&["rm", "-f", "tabled"]);
}

#[test]
fn rows_can_be_printed_by_templates_and_as_json() {
    let stack = lease();
    let id = stack.docker_ok(&[
        "run",
        "-d",
        "--name",
        "cr",
        "-l",
        "com.x-y.my_key=va",
        "-l",
        "b=2",
        "-v",
        "vol1:/v",
        "busybox",
        "sleep",
        "1000",
    ]);
    let ps = |format: &str| stack.docker_ok(&["ps", "--format", format]);
    assert_eq!(ps("{{.Names}}\\t{{.Image}}"), "cr\tbusybox");
    assert_eq!(
        ps("{{.Label \"com.x-y.my_key\"}} {{.Labels}} {{.Networks}} {{.Mounts}} {{.LocalVolumes}}"),
        "va b=2,com.x-y.my_key=va bridge vol1 1"
    );
    assert_eq!(
        ps("table {{.Label \"com.x-y.my_key\"}}\\t{{.State}}"),
        "my key    STATE\nva        running"
    );
    assert_eq!(
        ps("{{json .Command}} {{upper .Names}} {{len .ID}} {{printf \"%-3s|\" .Names}}"),
        "\"\\\"sleep 1000\\\"\" CR 12 cr |"
    );
    let json = ps("json");
    assert_eq!(json, ps("{{json .}}"));
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["ID"], &id[..12]);
    assert_eq!(value["Command"], "\"sleep 1000\"");
    assert_eq!(value["Platform"], serde_json::Value::Null);
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "Command",
            "CreatedAt",
            "ID",
            "Image",
            "Labels",
            "LocalVolumes",
            "Mounts",
            "Names",
            "Networks",
            "Platform",
            "Ports",
            "RunningFor",
            "Size",
            "State",
            "Status"
        ]
    );
    let size = ps("{{.Size}}");
    assert!(size.contains(" (virtual ") && size.ends_with("MB)"), "{size}");
    let mut created = stack.docker_command(&["ps", "--format", "{{.CreatedAt}}"]);
    let created = String::from_utf8(created.env("TZ", "UTC").output().unwrap().stdout).unwrap();
    assert!(created.ends_with(" +0000 UTC\n"), "{created}");
    let warned = stack.docker(&["ps", "-q", "--format", "{{.Names}}"]);
    let warning = "WARNING: Ignoring custom format, because both --format and --quiet are set.\n";
    assert_output(&warned, 0, &format!("{}\n", &id[..12]), warning);
    stack.docker_ok(&["rm", "-f", "cr"]);
    stack.api().delete("/volumes/vol1").expect(204);
}

#[test]
fn inspect_prints_the_engines_document() {
    let stack = lease();
    stack.docker_ok(&[
        "create", "--name", "ci", "-e", "A=<&>", "-l", "b=2", "-l", "a.b=1", "busybox", "x", "y",
    ]);
    // In the version in which the test asks: newer ones have more members.
    let mut inspect = stack.docker_command(&["inspect", "ci"]);
    let inspected = inspect.env("DOCKER_API_VERSION", &VERSION[2..]).output().unwrap();
    let document = String::from_utf8(inspected.stdout).unwrap().trim_end().to_owned();
    let value: serde_json::Value = serde_json::from_str(&document).unwrap();
    let direct = stack.api().get("/containers/ci/json").expect(200).json();
    assert_eq!(value, serde_json::json!([direct]));
    // In the engine's order, four blanks a level, nothing escaped.
    assert!(document.starts_with("[\n    {\n        \"Id\": \""), "{document}");
    let order: Vec<usize> = ["\"Id\"", "\"Created\"", "\"Path\"", "\"Args\"", "\"State\""]
        .iter()
        .map(|key| document.find(key).unwrap())
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    let json = stack.docker_ok(&["inspect", "--format", "json", "ci"]);
    assert!(json.starts_with("[{\"Id\":\"") && !json.contains('\n'), "{json}");
    for (format, text) in [
        ("{{.Name}} {{.State.Status}}", "/ci created"),
        (
            "{{json .Config.Labels}} {{.Config.Labels}}",
            "{\"a.b\":\"1\",\"b\":\"2\"} map[a.b:1 b:2]",
        ),
        (
            "{{index .Config.Labels \"a.b\"}} {{.Config.Labels.b}} {{.Config.Labels.nope}}",
            "1 2 <no value>",
        ),
        (
            "{{.Config.Cmd}} {{json .Config.Cmd}} {{index .Config.Cmd 1}} {{len .Config.Cmd}}",
            "[x y] [\"x\",\"y\"] y 2",
        ),
        ("{{join .Config.Cmd \"-\"}} {{.Path}} {{.Args}}", "x-y x [y]"),
        (
            "{{json .HostConfig.Binds}} {{.HostConfig.Binds}} {{.HostConfig.PidsLimit}}",
            "null [] <nil>",
        ),
        (
            "{{range .Config.Env}}{{if eq (slice . 0 2) \"A=\"}}{{println .}}{{end}}{{end}}",
            "A=<&>\n",
        ),
        ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}};{{end}}", "a.b=1;b=2;"),
        (
            "{{if .State.Running}}up{{else}}down{{end}} {{with .Config.Image}}{{.}}{{end}}",
            "down busybox",
        ),
        ("{{json (index .Config.Env 0)}}", "\"A=<&>\""),
        (
            "{{.HostConfig.RestartPolicy.Name}}|{{.HostConfig.NanoCpus}}|{{.Config.Tty}}",
            "no|0|false",
        ),
    ] {
        assert_eq!(stack.docker_ok(&["inspect", "-f", format, "ci"]), text.trim_end(), "{format}");
    }
    let image = stack.docker_ok(&[
        "inspect",
        "-f",
        "{{.Os}} {{json .RepoTags}} {{.Config.Cmd}}",
        "busybox",
    ]);
    assert_eq!(image, "linux [\"busybox:latest\"] [sh]");
    let kind =
        |arguments: &[&str]| stack.docker_ok(&[arguments, &["-f", "{{.Id}}", "ci"]].concat());
    assert_eq!(kind(&["inspect", "--type", "container"]), kind(&["container", "inspect"]));
    stack.docker_ok(&["rm", "ci"]);
}

#[test]
fn inspect_tells_what_is_not_there_after_what_is() {
    let stack = lease();
    assert_output(&stack.docker(&["inspect", "nope"]), 1, "[]\n", "Error: No such object: nope\n");
    let container = stack.docker(&["inspect", "--type", "container", "nope"]);
    assert_output(&container, 1, "[]\n", "Error response from daemon: No such container: nope\n");
    let both = stack.docker(&["inspect", "busybox", "nope", "-f", "{{.Os}}"]);
    assert_output(&both, 1, "linux\n", "Error: No such object: nope\n");
    assert_output(
        &stack.docker(&["inspect", "-f", "{{json .}}", "nope"]),
        1,
        "\n",
        "Error: No such object: nope\n",
    );
}

#[test]
fn wrong_templates_are_told_in_gos_words() {
    let stack = lease();
    stack.docker_ok(&["create", "--name", "cw", "busybox"]);
    for (arguments, code, stdout, stderr) in [
        (
            vec!["inspect", "-f", "{{.Id", "cw"],
            64,
            "",
            "template parsing error: template: :1: unclosed action",
        ),
        (
            vec!["inspect", "-f", "{{nofunc .}}", "cw"],
            64,
            "",
            "template parsing error: template: :1: function \"nofunc\" not defined",
        ),
        (
            vec!["inspect", "-f", "{{if}}", "cw"],
            64,
            "",
            "template parsing error: template: :1: missing value for if",
        ),
        (
            vec!["inspect", "-f", "{{end}}", "cw"],
            64,
            "",
            "template parsing error: template: :1: unexpected {{end}}",
        ),
        (
            vec!["inspect", "-f", "{{range .Args}}", "cw"],
            64,
            "",
            "template parsing error: template: :1: unexpected EOF",
        ),
        (
            vec!["inspect", "-f", "{{.Nope}}", "cw"],
            1,
            "\n",
            "template parsing error: template: :1:2: executing \"\" at <.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            vec!["inspect", "-f", "{{.State.Nope}}", "cw"],
            1,
            "\n",
            "template parsing error: template: :1:8: executing \"\" at <.State.Nope>: map has no entry for key \"Nope\"",
        ),
        (
            vec!["ps", "-a", "--format", "{{.Nope}}"],
            1,
            "",
            "failed to execute template: template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type *formatter.ContainerContext",
        ),
        (
            vec!["ps", "--format", "{{.ID"],
            1,
            "",
            "failed to parse template: template: :1: unclosed action",
        ),
        (
            vec!["images", "--format", "{{.ID"],
            1,
            "",
            "template parsing error: template: :1: unclosed action",
        ),
        (
            vec!["events", "--until", "1", "--format", "{{.X"],
            64,
            "",
            "Error parsing format: template: :1: unclosed action",
        ),
        (
            vec!["version", "-f", "{{.X"],
            64,
            "",
            "template parsing error: template: version:1: unclosed action",
        ),
        (
            vec!["info", "-f", "{{.X"],
            64,
            "",
            "template parsing error: template: :1: unclosed action",
        ),
        (
            vec!["info", "-f", "{{.Nope}}"],
            1,
            "\n",
            "template: :1:2: executing \"\" at <.Nope>: can't evaluate field Nope in type system.dockerInfo",
        ),
    ] {
        let output = stack.docker(&arguments);
        assert_eq!(
            (output.code, &*output.stdout, &*output.stderr),
            (code, stdout, &*format!("{stderr}\n")),
            "{arguments:?}"
        );
    }
    stack.docker_ok(&["rm", "cw"]);
}
