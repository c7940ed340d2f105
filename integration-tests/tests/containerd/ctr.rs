//! ctr-rs over a private containerd-rs: words, tables and exit codes as ctr's.
//!
//! Compat: what is expected here was seen with ctr 1.6 and 2.1 over their containerds, where they agree.

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use integration_tests::parts::ours;

use crate::daemon::{Daemon, eventually};
use crate::registry::{Image, Registry, digest};

/// What a verb answered.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    error: String,
}

fn command(daemon: &Daemon, words: &[&str]) -> Command {
    let mut command = Command::new(ours("ctr-rs"));
    command.arg("-a").arg(daemon.top.path().join("c.sock"));
    command.args(["-n", &daemon.namespace]).args(words).stdin(Stdio::null());
    command
}

fn ctr(daemon: &Daemon, words: &[&str]) -> Said {
    let output = command(daemon, words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let code = output.status.code().unwrap();
    Said { code, out: text(output.stdout), error: text(output.stderr) }
}

/// Succeeds, and says nothing on the side.
fn ok(daemon: &Daemon, words: &[&str]) -> String {
    let said = ctr(daemon, words);
    assert_eq!((said.code, said.error.as_str()), (0, ""), "{words:?} {}", said.out);
    said.out
}

/// Fails with this sentence as its last.
fn refused(daemon: &Daemon, words: &[&str], sentence: &str) {
    let said = ctr(daemon, words);
    assert_eq!(said.code, 1, "{words:?} {said:?}");
    assert_eq!(said.error.lines().last().unwrap_or_default(), format!("ctr: {sentence}"));
}

/// The words of a line of a table, without its varying columns.
fn row<'a>(table: &'a str, first: &str) -> Vec<&'a str> {
    let line = table.lines().find(|line| line.starts_with(&format!("{first} ")));
    line.unwrap_or_else(|| panic!("no {first} in\n{table}")).split_whitespace().collect()
}

async fn with_image() -> (Daemon, Image) {
    let daemon = Daemon::start().await;
    let image = Image::busybox();
    let path = daemon.top.path().join("image.tar");
    fs::write(&path, image.archive("box:1")).unwrap();
    let out = ok(&daemon, &["images", "import", path.to_str().unwrap()]);
    assert!(out.contains("docker.io/library/box:1"), "{out}");
    (daemon, image)
}

const IMAGE: &str = "docker.io/library/box:1";

/// `run` with its fifos in the test's own directory.
fn run<'a>(fifos: &'a str, words: &[&'a str]) -> Vec<&'a str> {
    [&["run", "--fifo-dir", fifos][..], words].concat()
}

fn fifos(daemon: &Daemon) -> String {
    daemon.top.path().join("fifo").to_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_image_is_pulled_run_and_removed() {
    let daemon = Daemon::start().await;
    let image = Image::busybox();
    let (layer, manifest) = (image.layer_digest(), digest(&image.manifest()));
    let registry = Registry::start(image, None);
    let name = format!("{}/box:1", registry.host);
    let out = ok(&daemon, &["images", "pull", "--plain-http", &name]);
    assert!(out.lines().any(|line| line.starts_with(&name) && line.ends_with("saved")), "{out}");
    assert!(out.contains(&format!("layer-{layer}")), "{out}");
    let list = ok(&daemon, &["images", "ls"]);
    assert!(list.starts_with("REF"), "{list}");
    assert_eq!(row(&list, &name)[2], manifest);
    assert_eq!(ok(&daemon, &["images", "ls", "-q"]), format!("{name}\n"));

    let before = registry.asked().len();
    ok(&daemon, &["images", "pull", "--plain-http", &name]);
    let again = registry.asked().split_off(before);
    assert!(!again.iter().any(|line| line.contains("/blobs/")), "{again:?}");

    let directory = fifos(&daemon);
    let out = ok(&daemon, &run(&directory, &["--rm", &name, "c1"]));
    assert_eq!(out, "from the image\n");
    assert_eq!(ok(&daemon, &["containers", "ls", "-q"]), "");

    let missing = format!("{}/nope:1", registry.host);
    let sentence = format!("failed to resolve image: {missing}: not found");
    refused(&daemon, &["images", "pull", "--plain-http", &missing], &sentence);
    assert_eq!(ok(&daemon, &["images", "rm", "--sync", &name]), format!("{name}\n"));
    assert_eq!(ok(&daemon, &["content", "ls", "-q"]), "");
    let gone = ctr(&daemon, &["images", "rm", &name]);
    assert_eq!((gone.code, gone.out.as_str()), (0, ""));
    assert!(gone.error.contains(&format!("level=warning msg=\"{name}: image not found\"")));
}

#[tokio::test]
async fn a_pull_that_needs_a_password_is_given_it() {
    let daemon = Daemon::start().await;
    // u:secret
    let registry = Registry::start(Image::busybox(), Some("Basic dTpzZWNyZXQ="));
    let name = format!("{}/box:1", registry.host);
    let pull = ["images", "pull", "--plain-http"];
    let nobody: &[&str] = &[];
    let (none, wrong) = ("authorization failed: no basic auth credentials", "401 Unauthorized");
    for (user, reason) in [(nobody, none), (&["--user", "u:wrong"], wrong)] {
        let said = ctr(&daemon, &[&pull[..], user, &[name.as_str()]].concat());
        assert_eq!(said.code, 1);
        assert!(said.error.contains(reason), "{}", said.error);
    }
    ok(&daemon, &[&pull[..], &["--user", "u:secret", &name]].concat());
    assert_eq!(ok(&daemon, &["images", "ls", "-q"]), format!("{name}\n"));
}

#[tokio::test]
async fn images_content_and_snapshots_are_listed_and_removed() {
    let (daemon, image) = with_image().await;
    assert_eq!(ok(&daemon, &["images", "tag", IMAGE, "x.io/y:1"]), "x.io/y:1\n");
    let exists = r#"image "x.io/y:1": already exists"#;
    refused(&daemon, &["images", "tag", IMAGE, "x.io/y:1"], exists);
    refused(&daemon, &["images", "tag", "nope", "x.io/z:1"], r#"image "nope": not found"#);
    assert_eq!(ok(&daemon, &["images", "label", IMAGE, "a=b"]), "a=b\n");
    refused(
        &daemon,
        &["images", "import", "/nope.tar"],
        "open /nope.tar: no such file or directory",
    );

    let config = ok(&daemon, &["content", "get", &image.config_digest()]);
    assert_eq!(digest(config.as_bytes()), image.config_digest());
    let zero = format!("sha256:{}", "0".repeat(64));
    let missing = format!("content digest {zero}: not found");
    refused(&daemon, &["content", "get", &zero], &missing);
    // Compat: gone is gone.
    assert_eq!(ok(&daemon, &["content", "rm", &zero]), "");
    let list = ok(&daemon, &["content", "ls", "-q"]);
    assert!(list.lines().any(|line| line == image.layer_digest()), "{list}");

    let layer = image.layer_digest();
    assert_eq!(row(&ok(&daemon, &["snapshots", "ls"]), &layer), [layer.as_str(), "Committed"]);
    let mounts = ok(&daemon, &["snapshots", "prepare", "--mounts", "mine", &layer]);
    assert!(mounts.contains("\"Type\": \"overlay\""), "{mounts}");
    assert_eq!(row(&ok(&daemon, &["snapshots", "ls"]), "mine"), ["mine", &layer, "Active"]);
    assert!(row(&ok(&daemon, &["snapshots", "usage"]), &layer)[1].parse::<f64>().unwrap() > 0.5);
    // Nothing refers to what a person prepared and committed; garbage collection leaves it.
    ok(&daemon, &["snapshots", "prepare", "kept", &layer]);
    ok(&daemon, &["snapshots", "commit", "base", "kept"]);
    ok(&daemon, &["images", "rm", "--sync", "x.io/y:1"]);
    let snapshots = ok(&daemon, &["snapshots", "ls"]);
    assert_eq!(row(&snapshots, "base"), ["base", &layer, "Committed"]);
    assert_eq!(row(&snapshots, "mine"), ["mine", &layer, "Active"]);
    for name in ["mine", "base"] {
        let info = ok(&daemon, &["snapshots", "info", name]);
        assert!(info.contains(r#""containerd.io/gc.root": "20"#), "{info}");
    }
    ok(&daemon, &["snapshots", "rm", "mine", "base"]);
    let nope = r#"failed to remove "nope": snapshot nope does not exist: not found"#;
    refused(&daemon, &["snapshots", "rm", "nope"], nope);
}

#[tokio::test]
async fn a_task_is_listed_entered_paused_killed_and_deleted() {
    let (daemon, _) = with_image().await;
    let directory = fifos(&daemon);
    ok(&daemon, &run(&directory, &["-d", IMAGE, "c", "sleep", "1000"]));
    refused(
        &daemon,
        &run(&directory, &["-d", IMAGE, "c", "true"]),
        r#"snapshot "c": already exists"#,
    );
    let list = ok(&daemon, &["tasks", "ls"]);
    assert_eq!(list.lines().next().unwrap().split_whitespace().last(), Some("STATUS"));
    assert_eq!(row(&list, "c")[2], "RUNNING");
    assert_eq!(ok(&daemon, &["tasks", "ps", "c"]).lines().count(), 2);
    let exec = ["tasks", "exec", "--fifo-dir", &directory, "--exec-id", "e", "c"];
    assert_eq!(ok(&daemon, &[&exec[..], &["cat", "/marker"]].concat()), "from the image\n");
    assert_eq!(ctr(&daemon, &[&exec[..], &["sh", "-c", "exit 4"]].concat()).code, 4);
    let mut child = command(&daemon, &[&exec[..], &["cat"]].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"typed").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"typed");
    // What an exec leaves behind does not hold ctr.
    let left = ctr(&daemon, &[&exec[..], &["sh", "-c", "sleep 100 & echo said"]].concat());
    assert_eq!((left.code, left.out.as_str()), (0, "said\n"));

    assert!(ok(&daemon, &["tasks", "metrics", "c"]).contains("pids.current"));
    let running = "task must be stopped before deletion: running: failed precondition";
    refused(&daemon, &["tasks", "rm", "c"], running);
    let said = ctr(&daemon, &["containers", "rm", "c"]);
    assert!(said.error.contains("cannot delete a non stopped container: {running"), "{said:?}");
    ok(&daemon, &["tasks", "kill", "-s", "KILL", "c"]);
    eventually("stopped", || row(&ok(&daemon, &["tasks", "ls"]), "c")[2] == "STOPPED").await;
    refused(&daemon, &["tasks", "kill", "c"], "process already finished: not found");
    let removed = ctr(&daemon, &["tasks", "rm", "c"]);
    assert_eq!((removed.code, removed.out.as_str()), (0, ""));
    assert!(removed.error.contains("task c exit with non-zero exit code 137"), "{removed:?}");
    refused(&daemon, &["tasks", "ps", "c"], "no running task found: task c not found");
    assert_eq!(row(&ok(&daemon, &["containers", "ls"]), "c")[1], IMAGE);
    ok(&daemon, &["containers", "rm", "c"]);
    let namespace = &daemon.namespace;
    let gone = format!("container \"c\" in namespace \"{namespace}\": not found");
    for verb in [&["containers", "rm"][..], &["containers", "info"], &["tasks", "pause"]] {
        refused(&daemon, &[verb, &["c"]].concat(), &gone);
    }
}

#[tokio::test]
async fn exit_codes_and_both_outputs_come_through_run() {
    let (daemon, _) = with_image().await;
    let directory = fifos(&daemon);
    let said = ctr(
        &daemon,
        &run(&directory, &["--rm", IMAGE, "c", "sh", "-c", "echo out; echo err >&2; exit 7"]),
    );
    assert_eq!((said.code, said.out.as_str(), said.error.as_str()), (7, "out\n", "err\n"));
    let said = ctr(&daemon, &run(&directory, &["--rm", IMAGE, "d", "/missing"]));
    assert_eq!(said.code, 1);
    assert!(said.error.contains("no such file or directory"), "{}", said.error);
    assert_eq!(ok(&daemon, &["containers", "ls", "-q"]), "");
    refused(&daemon, &run(&directory, &["nope:1", "e"]), r#"image "nope:1": not found"#);
    assert_eq!(ctr(&daemon, &["nosuchverb"]).code, 3);
}

#[tokio::test]
async fn namespaces_leases_plugins_events_and_the_version_are_shown() {
    let (daemon, _) = with_image().await;
    ok(&daemon, &["namespaces", "create", "n1", "l=v"]);
    refused(&daemon, &["namespaces", "create", "n1"], r#"namespace "n1": already exists"#);
    assert_eq!(row(&ok(&daemon, &["namespaces", "ls"]), "n1"), ["n1", "l=v"]);
    assert_eq!(ok(&daemon, &["namespaces", "rm", "n1", "nope"]), "n1\nnope\n");
    assert_eq!(ok(&daemon, &["leases", "create", "--id", "l1", "x=y"]), "l1\n");
    refused(&daemon, &["leases", "create", "--id", "l1"], r#"lease "l1": already exists"#);
    assert!(row(&ok(&daemon, &["leases", "ls"]), "l1")[2].ends_with("Z,x=y"));
    assert_eq!(ok(&daemon, &["leases", "rm", "l1"]), "l1\n");
    refused(&daemon, &["leases", "rm", "l1"], r#"lease "l1": not found"#);
    let plugins = ok(&daemon, &["plugins", "ls"]);
    assert!(plugins.lines().any(|line| line.contains("io.containerd.snapshotter.v1")), "{plugins}");
    let version = ok(&daemon, &["version"]);
    let lines: Vec<&str> = version.lines().map(|line| line.split(':').next().unwrap()).collect();
    let wanted =
        ["Client", "  Version", "  Revision", "", "Server", "  Version", "  Revision", "  UUID"];
    assert_eq!(lines, wanted);

    let log = daemon.top.path().join("events");
    let mut events =
        command(&daemon, &["events"]).stdout(fs::File::create_new(&log).unwrap()).spawn().unwrap();
    let directory = fifos(&daemon);
    let shown = || fs::read_to_string(&log).unwrap();
    // Only what happens after the subscription is seen: until then, something small happens.
    eventually("subscribed", || {
        ok(&daemon, &["leases", "create", "--id", "l"]);
        ok(&daemon, &["images", "label", IMAGE, "n=1"]);
        ok(&daemon, &["leases", "rm", "l"]);
        shown().contains("/images/update")
    })
    .await;
    ok(&daemon, &run(&directory, &["--rm", IMAGE, "ev", "true"]));
    eventually("the last event", || shown().contains("/containers/delete")).await;
    events.kill().unwrap();
    events.wait().unwrap();
    let all = shown();
    let topics: Vec<&str> = all.lines().map(|line| line.split(' ').nth(5).unwrap()).collect();
    let from = topics.iter().position(|topic| *topic == "/snapshot/prepare").unwrap();
    let wanted = [
        "/snapshot/prepare",
        "/containers/create",
        "/tasks/create",
        "/tasks/start",
        "/tasks/exit",
        "/tasks/delete",
        "/snapshot/remove",
        "/containers/delete",
    ];
    assert_eq!(topics[from..], wanted);
    let create = all.lines().find(|line| line.contains("/tasks/create")).unwrap();
    assert!(create.contains(r#" {"container_id":"ev","bundle":"#), "{create}");
}
