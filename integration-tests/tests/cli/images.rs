//! Images: load, pull, tag, list, remove; progress on a terminal and without.

use std::fs;
use std::process::{Command, Stdio};

use integration_tests::image;
use integration_tests::pool::lease;
use integration_tests::registry::Registry;
use integration_tests::terminal::Terminal;
use serde_json::json;

use crate::assert_output;

#[test]
fn load_reads_a_file_or_its_input() {
    let stack = lease();
    let archive = image::busybox_archive().to_str().unwrap();
    let loaded = "Loaded image: busybox:latest\n";
    assert_output(&stack.docker(&["load", "-q", "-i", archive]), 0, loaded, "");
    assert_output(&stack.docker(&["load", "--input", archive]), 0, loaded, "");
    let bytes = fs::read(archive).unwrap();
    assert_output(&stack.docker_with(&["load"], &bytes), 0, loaded, "");
    assert_output(&stack.docker_with(&["image", "load", "-q"], &bytes), 0, loaded, "");
    let missing = stack.docker(&["load", "-i", "/nope"]);
    assert_output(&missing, 1, "", "open /nope: no such file or directory\n");
    let broken = stack.docker_with(&["load"], &bytes[..50_000]);
    assert_eq!((broken.code, broken.stdout.as_str()), (1, ""));
    assert_ne!(broken.stderr, "");
}

#[test]
fn tag_list_and_remove() {
    let stack = lease();
    assert_output(&stack.docker(&["tag", "busybox", "other:1"]), 0, "", "");
    assert_output(&stack.docker(&["image", "tag", "busybox", "localhost:5000/o/x"]), 0, "", "");
    let images = |arguments: &[&str]| stack.docker_ok(&[&["images"][..], arguments].concat());
    let mut names: Vec<String> =
        images(&["--format", "{{.Repository}}:{{.Tag}}"]).lines().map(str::to_owned).collect();
    names.sort();
    assert_eq!(names, ["busybox:latest", "localhost:5000/o/x:latest", "other:1"]);
    let id = stack.docker_ok(&["inspect", "-f", "{{.Id}}", "busybox"]);
    let short = &id["sha256:".len()..][..12];
    assert_eq!(images(&["-q", "other:1"]), short);
    assert_eq!(images(&["-q", "--no-trunc", "other"]), id);
    assert_eq!(images(&["--format", "{{.Tag}}", "other:2"]), "");
    assert_eq!(
        images(&["-f", "reference=oth*", "--format", "{{.Repository}} {{.ID}}"]),
        format!("other {short}")
    );
    let table = images(&["other"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0], "REPOSITORY   TAG       IMAGE ID       CREATED       SIZE");
    assert!(lines[1].starts_with(&format!("other        1         {short}   ")), "{table}");
    let json: serde_json::Value =
        serde_json::from_str(&images(&["other", "--format", "json"])).unwrap();
    for (name, text) in [("Repository", "other"), ("Tag", "1"), ("ID", short), ("Digest", "<none>")]
    {
        assert_eq!(json[name], text);
    }
    assert_eq!(images(&["other", "--format", "{{json .Repository}}"]), "\"other\"");
    assert!(images(&["--digests", "other"]).starts_with("REPOSITORY   TAG       DIGEST "));
    assert_output(&stack.docker(&["rmi", "other:1"]), 0, "Untagged: other:1\n", "");
    let gone = stack.docker(&["rmi", "localhost:5000/o/x", "nope"]);
    assert_output(
        &gone,
        1,
        "Untagged: localhost:5000/o/x:latest\n",
        "Error response from daemon: No such image: nope:latest\n",
    );
    assert_output(
        &stack.docker(&["rmi", "-f", "nope"]),
        0,
        "",
        "Error response from daemon: No such image: nope:latest\n",
    );
    let wrong = "Error parsing reference: \"busyBox\" is not a valid repository/tag: invalid reference format: repository name (library/busyBox) must be lowercase\n";
    assert_output(&stack.docker(&["tag", "busybox", "busyBox"]), 1, "", wrong);
    assert_output(
        &stack.docker(&["tag", "nope", "x"]),
        1,
        "",
        "Error response from daemon: No such image: nope:latest\n",
    );
}

#[test]
fn pull_reports_each_layer_and_ends_with_the_name() {
    let stack = lease();
    let registry = Registry::start(stack.sandbox());
    let layers = [image::busybox_layer(), image::layer(&[("extra", "more")])];
    let digest = registry.push(
        "lib/pulled",
        "latest",
        &json!({"config": {"Cmd": ["cat", "/extra"]}}),
        &layers,
    );
    let name = format!("{}/lib/pulled", registry.host);
    let pulled = stack.docker(&["pull", &name]);
    assert_eq!((pulled.code, pulled.stderr.as_str()), (0, ""));
    let lines: Vec<&str> = pulled.stdout.lines().collect();
    assert_eq!(lines[..2], ["Using default tag: latest", "latest: Pulling from lib/pulled"]);
    let tail = [
        format!("Digest: {digest}"),
        format!("Status: Downloaded newer image for {name}:latest"),
        format!("{name}:latest"),
    ];
    assert_eq!(lines[lines.len() - 3..], tail);
    // The other layer is there already.
    if let Some(layer) = layers.last() {
        let short = &image::digest(layer)[7..19];
        for step in ["Pulling fs layer", "Download complete", "Pull complete"] {
            assert!(
                lines.contains(&&*format!("{short}: {step}")),
                "{short}: {step} in {}",
                pulled.stdout
            );
        }
    }
    let again = stack.docker(&["pull", &format!("{name}:latest")]);
    let expected = format!(
        "latest: Pulling from lib/pulled\nDigest: {digest}\nStatus: Image is up to date for {name}:latest\n{name}:latest\n"
    );
    assert_output(&again, 0, &expected, "");
    assert_output(&stack.docker(&["pull", "-q", &name]), 0, &format!("{name}:latest\n"), "");
    stack.docker_ok(&["rmi", &name]);
    // `run` pulls by itself, and says so on stderr.
    let run = stack.docker(&["run", "--rm", &name]);
    assert_eq!((run.code, run.stdout.as_str()), (0, "more"));
    assert!(
        run.stderr.starts_with(&format!(
            "Unable to find image '{name}:latest' locally\nlatest: Pulling from lib/pulled\n"
        )),
        "{}",
        run.stderr
    );
    assert!(
        run.stderr.ends_with(&format!("Status: Downloaded newer image for {name}:latest\n")),
        "{}",
        run.stderr
    );
    assert_eq!(stack.docker(&["run", "--rm", "--pull=always", "-q", &name]).ok(), "more");
    let by_digest = stack.docker(&["pull", &format!("{name}@{digest}")]);
    assert_eq!(
        by_digest.stdout.lines().last(),
        Some(&*format!("{name}@{digest}")),
        "{}",
        by_digest.stderr
    );
    // By the id, for all of its names.
    let id = stack.docker_ok(&["inspect", "-f", "{{.Id}}", &name]);
    stack.docker_ok(&["rmi", "-f", &id]);
    let unknown = stack.docker(&["pull", &format!("{}/lib/none:1", registry.host)]);
    assert_eq!((unknown.code, unknown.stdout.as_str()), (1, ""));
    assert!(unknown.stderr.starts_with("Error response from daemon: "), "{}", unknown.stderr);
}

#[test]
fn on_a_terminal_layers_are_shown_in_place() {
    let stack = lease();
    let registry = Registry::start(stack.sandbox());
    let layer = image::layer(&[("seen", &"x".repeat(100_000))]);
    registry.push("lib/seen", "1", &json!({}), std::slice::from_ref(&layer));
    let name = format!("{}/lib/seen:1", registry.host);
    let mut terminal = Terminal::docker(&stack, &["pull", &name], 30, 100);
    let (text, code) = terminal.until_end();
    assert_eq!(code, 0, "{text}");
    let short = &image::digest(&layer)[7..19];
    assert!(text.starts_with("1: Pulling from lib/seen\r\n"), "{text}");
    assert!(text.contains(&format!("{short}: Pull complete")), "{text}");
    assert!(text.contains("\x1b["), "lines are written over: {text:?}");
    assert!(
        text.ends_with(&format!("Status: Downloaded newer image for {name}\r\n{name}\r\n")),
        "{text}"
    );
    stack.docker_ok(&["rmi", &name]);
    // Nothing on a terminal to load from.
    let mut terminal = Terminal::docker(&stack, &["load"], 30, 100);
    let (text, code) = terminal.until_end();
    assert_eq!((text.as_str(), code), ("requested load from stdin, but stdin is empty\r\n", 1));
}

#[test]
fn import_takes_a_file_system() {
    let stack = lease();
    let layer = stack.root().join("fs.tar");
    fs::write(&layer, image::busybox_layer()).unwrap();
    let id = stack.docker_ok(&[
        "import",
        "-c",
        "CMD [\"echo\", \"imported\"]",
        layer.to_str().unwrap(),
        "imported:1",
    ]);
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(stack.docker_ok(&["run", "--rm", "imported:1"]), "imported");
    stack.docker_ok(&["rmi", "imported:1"]);
    let mut cat = Command::new("cat").arg(&layer).stdout(Stdio::piped()).spawn().unwrap();
    let mut import = stack.docker_command(&["import", "-", "imported:2"]);
    let output = import.stdin(cat.stdout.take().unwrap()).output().unwrap();
    assert!(cat.wait().unwrap().success() && output.status.success(), "{output:?}");
    stack.docker_ok(&["rmi", "imported:2"]);
}
