//! events, as a stream.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, stderr, unified};

struct Stream {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Stream {
    fn of(bundle: &Bundle, interval: &str) -> Self {
        let mut child = bundle
            .command(&["events", "--interval", interval, &bundle.id])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// "" at the end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    fn end(mut self) -> Option<i32> {
        while !self.line().is_empty() {}
        self.child.wait().unwrap().code()
    }
}

#[test]
fn events_go_on_until_the_container_is_gone() {
    // On kernels that tell nobody of a removed v1 group runc's stream never ends.
    if !ours_only() && !unified() {
        return;
    }
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let mut stream = Stream::of(&bundle, "20ms");
    for _ in 0..3 {
        let line = stream.line();
        assert!(line.starts_with(&format!("{{\"type\":\"stats\",\"id\":\"{}\",", bundle.id)));
        let event: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(event["data"]["pids"]["current"], 1);
    }
    bundle.ok(&["delete", "--force", &bundle.id]);
    assert_eq!(stream.end(), Some(0));
}

#[test]
fn events_end_with_the_last_process_and_not_with_the_first() {
    if !ours_only() {
        return;
    }
    let mut bundle = Bundle::new("sleep 100 & exit 0");
    bundle.linux()["namespaces"].as_array_mut().unwrap().retain(|kind| kind["type"] != "pid");
    bundle.detached(&["create", "--bundle", bundle.path().to_str().unwrap(), &bundle.id]);
    let first = bundle.pid();
    let mut stream = Stream::of(&bundle, "20ms");
    assert!(stream.line().contains("\"stats\""));
    bundle.detached(&["start", &bundle.id]);
    bundle.wait_gone(first);
    assert!(stream.line().contains("\"stats\""));
    bundle.ok(&["kill", "--all", &bundle.id, "KILL"]);
    assert_eq!(stream.end(), Some(0));
}

#[test]
fn a_container_whose_memory_ran_out_is_told_of() {
    let mut bundle = Bundle::new("sleep 100");
    let limit = 16 << 20;
    bundle.linux()["resources"]["memory"] = json!({"limit": limit, "swap": limit});
    bundle.start();
    let mut stream = Stream::of(&bundle, "20ms");
    assert!(stream.line().contains("\"stats\""));
    let hog = "x=$(busybox dd if=/dev/zero bs=1M count=64 2>/dev/null | busybox tr '\\0' x)";
    let output = bundle.call(&["exec", &bundle.id, "sh", "-c", hog]);
    assert_ne!(output.status.code(), Some(0), "{}", stderr(&output));
    let wanted = format!("{{\"type\":\"oom\",\"id\":\"{}\"}}\n", bundle.id);
    let mut line = stream.line();
    while line != wanted {
        assert!(line.contains("\"stats\""), "{line:?}");
        line = stream.line();
    }
    bundle.ok(&["delete", "--force", &bundle.id]);
    if ours_only() || unified() {
        assert_eq!(stream.end(), Some(0));
    } else {
        stream.child.kill().unwrap();
        stream.child.wait().unwrap();
    }
}

#[test]
fn an_interval_that_is_none_is_refused() {
    let bundle = Bundle::new("sleep 100");
    bundle.start();
    let call = |interval: &str| {
        let output = bundle.call(&["events", "--interval", interval, &bundle.id]);
        assert_eq!(output.status.code(), Some(1), "{interval}");
        stderr(&output)
    };
    for interval in ["0", "-1s"] {
        assert!(call(interval).contains("duration interval must be greater than 0"), "{interval}");
    }
    assert!(call("5").contains("invalid value \\\"5\\\" for flag -interval"));
}
