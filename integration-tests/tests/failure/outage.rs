//! Daemons killed under a container that writes: it runs on, and its output has no gap.

use serde_json::{Value, json};

use crate::writer::{CODE, Writer};
use crate::{Victim, lasting, listed, output, pid};

/// What is written while the daemons are away: three seconds' worth at 5 MB a second.
const MEANWHILE: usize = 15_000_000;

fn survives(victim: Victim, log_options: Value) {
    let stack = lasting();
    let api = stack.api();
    let writer = Writer::start(&stack, log_options);
    let before = api.inspect(&writer.id);
    victim.die(&stack);
    // Stock's container stands still once its pipe is full: its daemon writes the log.
    if !stack.is_stock() {
        writer.goes_on(MEANWHILE);
    }
    victim.come_back(&stack);
    assert_eq!(listed(&stack), [(writer.id.clone(), "running".to_owned())]);
    assert_eq!(pid(&stack, &writer.id), writer.pid);
    let after = api.inspect(&writer.id);
    for field in ["StartedAt", "Status", "ExitCode", "FinishedAt"] {
        assert_eq!(after["State"][field], before["State"][field], "{field}");
    }
    assert_eq!(after["RestartCount"], 0);
    writer.goes_on(100_000);
    let id = writer.id.clone();
    writer.finish();
    let state = api.inspect(&id)["State"].clone();
    assert_eq!((&state["Status"], &state["ExitCode"]), (&json!("exited"), &json!(CODE)));
    assert_eq!(listed(&stack), [(id, "exited".to_owned())]);
    assert_eq!(output(&stack, "echo well"), "well");
    stack.end();
}

#[test]
fn a_container_writes_on_without_its_engine() {
    survives(Victim::Engine, json!({}));
}

#[test]
fn a_log_turns_over_without_its_engine() {
    survives(Victim::Engine, json!({"max-size": "2m", "max-file": "1000"}));
}

#[test]
fn a_container_writes_on_without_its_containerd() {
    survives(Victim::Containerd, json!({}));
}

#[test]
fn a_container_writes_on_without_both() {
    survives(Victim::Both, json!({"max-size": "5m", "max-file": "1000"}));
}
