//! Health checks: states, results, events, limits, and where the check comes from.

use integration_tests::Stack;
use integration_tests::image::{archive, busybox_layer};
use integration_tests::pool::lease;
use integration_tests::sandbox::until;
use serde_json::{Value, json};

use crate::events::Events;
use crate::{in_container, query, sleeper, with};

const NAME: &str = "life";

/// Milliseconds, as the API wants them.
fn ms(milliseconds: u64) -> u64 {
    milliseconds * 1_000_000
}

fn checked(check: &Value) -> Value {
    with(sleeper(), json!({"Healthcheck": check}))
}

/// Well while /ok is there.
fn file_check() -> Value {
    json!({"Test": ["CMD-SHELL", "echo looked; test -f /ok || exit 3"], "Interval": ms(200),
        "StartInterval": ms(200), "Retries": 2})
}

fn health(stack: &Stack) -> Value {
    stack.api().inspect(NAME)["State"]["Health"].clone()
}

fn status(stack: &Stack) -> String {
    let list = stack.api().get("/containers/json?all=1").expect(200).json();
    let status = list[0]["Status"].as_str().unwrap();
    status.split_once('(').map_or(String::new(), |(_, rest)| format!("({rest}"))
}

fn found(stack: &Stack, wanted: &str) -> bool {
    let filters = query(&json!({"health": [wanted]}));
    let list = stack.api().get(&format!("/containers/json?filters={filters}")).expect(200).json();
    !list.as_array().unwrap().is_empty()
}

#[test]
fn a_check_makes_a_container_healthy_or_not() {
    let stack = lease();
    let api = stack.api();
    api.create(NAME, &checked(&file_check()));
    let mut events = Events::of(&stack);
    assert_eq!(health(&stack), Value::Null);
    assert!(!found(&stack, "starting"));
    api.post("/containers/life/start").expect(204);
    let begun = health(&stack);
    assert_eq!(begun["Status"], "starting");
    assert_eq!(status(&stack), "(health: starting)");
    assert!(found(&stack, "starting") && !found(&stack, "none"));
    let told = events.until("health_status: unhealthy");
    let command = "/bin/sh -c echo looked; test -f /ok || exit 3";
    let probe = [
        format!("container exec_create: {command}"),
        format!("container exec_start: {command}"),
        "container exec_die exitCode=3".to_owned(),
    ];
    let wanted = [&probe[..], &probe[..], &["container health_status: unhealthy".to_owned()]];
    assert_eq!(told[2..], wanted.concat());
    let now = health(&stack);
    assert_eq!(now["Status"], "unhealthy");
    assert!(now["FailingStreak"].as_i64().unwrap() >= 2, "{now}");
    assert_eq!(now["Log"][0]["ExitCode"], 3);
    assert_eq!(now["Log"][0]["Output"], "looked\n");
    assert!(now["Log"][0]["Start"].as_str() < now["Log"][0]["End"].as_str(), "{now}");
    assert_eq!(status(&stack), "(unhealthy)");
    in_container(&stack, NAME, "touch /ok");
    events.until("health_status: healthy");
    let now = health(&stack);
    assert_eq!((&now["Status"], &now["FailingStreak"]), (&json!("healthy"), &json!(0)));
    assert_eq!(status(&stack), "(healthy)");
    assert!(found(&stack, "healthy") && !found(&stack, "unhealthy"));
    // Five are kept.
    until("more checks", || health(&stack)["Log"].as_array().unwrap().len() == 5);
    // Nobody asks what stands still or has ended.
    api.post("/containers/life/pause").expect(204);
    assert_eq!(health(&stack)["Status"], "unhealthy");
    assert_eq!(status(&stack), "(Paused)");
    api.post("/containers/life/unpause").expect(204);
    events.until("health_status: healthy");
    api.post("/containers/life/kill").expect(204);
    assert_eq!(health(&stack)["Status"], "unhealthy");
    events.until("disconnect");
    api.post("/containers/life/start").expect(204);
    events.until("health_status: healthy");
}

#[test]
fn a_check_that_takes_too_long_fails_and_is_ended() {
    let stack = lease();
    let api = stack.api();
    let check = json!({"Test": ["CMD", "sh", "-c", "exec sleep 1234"], "Interval": ms(100),
        "Timeout": ms(250), "Retries": 1});
    api.create(NAME, &checked(&check));
    let mut events = Events::of(&stack);
    api.post("/containers/life/start").expect(204);
    events.until("health_status: unhealthy");
    let now = health(&stack);
    assert_eq!(now["Log"][0]["ExitCode"], -1);
    assert_eq!(now["Log"][0]["Output"], "Health check exceeded timeout (250ms)");
    // They do not pile up.
    until("more checks", || health(&stack)["Log"].as_array().unwrap().len() == 4);
    let script = "for f in /proc/[0-9]*/cmdline; do tr '\\0' ' ' < $f; echo; done 2>/dev/null \
        | grep '^sleep 1234' | wc -l";
    let asleep = in_container(&stack, NAME, script);
    assert!(["0", "1"].contains(&&*asleep), "{asleep}");
}

#[test]
fn a_check_that_cannot_run_fails_and_long_output_is_cut() {
    let stack = lease();
    let api = stack.api();
    let often = |test: Value| json!({"Test": test, "Interval": ms(100), "Retries": 1});
    api.create(NAME, &checked(&often(json!(["CMD", "nosuch"]))));
    let mut events = Events::of(&stack);
    api.post("/containers/life/start").expect(204);
    events.until("health_status: unhealthy");
    let result = health(&stack)["Log"][0].clone();
    assert_eq!(result["ExitCode"], -1);
    let output = result["Output"].as_str().unwrap();
    assert!(output.contains("\"nosuch\": executable file not found in $PATH"), "{output}");
    api.delete("/containers/life?force=1").expect(204);
    let body = with(
        checked(&often(json!(["CMD-SHELL", "pwd; id -u; echo $A; yes | head -c 6000"]))),
        json!({"User": "daemon", "WorkingDir": "/tmp", "Env": ["A=b"]}),
    );
    api.create(NAME, &body);
    let mut events = Events::of(&stack);
    api.post("/containers/life/start").expect(204);
    events.until("health_status: healthy");
    let output = health(&stack)["Log"][0]["Output"].as_str().unwrap().to_owned();
    assert!(output.starts_with("/tmp\n1\nb\ny\n"), "{}", &output[..20]);
    assert_eq!((output.len(), output.ends_with("...")), (4099, true));
}

#[test]
fn failures_do_not_count_while_it_starts() {
    let stack = lease();
    let api = stack.api();
    let check = with(file_check(), json!({"StartPeriod": ms(3_600_000), "Retries": 1}));
    api.create(NAME, &checked(&check));
    let mut events = Events::of(&stack);
    api.post("/containers/life/start").expect(204);
    until("some checks", || health(&stack)["Log"].as_array().unwrap().len() >= 3);
    let now = health(&stack);
    assert_eq!((&now["Status"], &now["FailingStreak"]), (&json!("starting"), &json!(0)));
    in_container(&stack, NAME, "touch /ok");
    events.until("health_status: healthy");
    // Once well, it is no longer starting.
    in_container(&stack, NAME, "rm /ok");
    events.until("health_status: unhealthy");
}

#[test]
fn an_image_brings_its_check_and_a_container_may_have_none() {
    let stack = lease();
    let api = stack.api();
    let image = json!({"created": "2024-01-02T03:04:05Z",
        "config": {"Cmd": ["sleep", "1000"], "Healthcheck": with(file_check(), json!({"Timeout": ms(5000)}))},
        "history": [{"created": "2024-01-02T03:04:05Z", "created_by": "made for a test"}]});
    let tar = archive("test/healthy:1", &image, &[busybox_layer()]);
    api.post_bytes("/images/load?quiet=1", "application/x-tar", tar).expect(200);
    let body = |more: Value| with(json!({"Image": "test/healthy:1"}), more);
    let own = json!({"Healthcheck": {"Retries": 7, "Interval": 0}});
    api.run(NAME, &body(own));
    let told = api.inspect(NAME)["Config"]["Healthcheck"].clone();
    assert_eq!(told["Test"], file_check()["Test"]);
    assert_eq!((&told["Interval"], &told["Retries"]), (&json!(ms(200)), &json!(7)));
    in_container(&stack, NAME, "touch /ok");
    until("it is well", || health(&stack)["Status"] == "healthy");
    api.delete("/containers/life?force=1").expect(204);
    api.run(NAME, &body(json!({})));
    assert_eq!(health(&stack)["Status"], "starting");
    api.delete("/containers/life?force=1").expect(204);
    api.run(NAME, &body(json!({"Healthcheck": {"Test": ["NONE"]}})));
    assert_eq!(health(&stack), Value::Null);
    assert!(found(&stack, "none"));
    assert_eq!(status(&stack), "");
    api.delete("/containers/life?force=1").expect(204);
    api.delete("/images/test/healthy:1").expect(200);
    for (field, value) in
        [("Interval", json!(-1)), ("Timeout", json!(5)), ("StartPeriod", json!(1))]
    {
        let mut check = file_check();
        check[field] = value;
        let bad = api.post_json("/containers/create", &checked(&check)).expect(400);
        assert_eq!(bad.message(), format!("{field} in Healthcheck cannot be less than 1ms"));
    }
    let bad = checked(&with(file_check(), json!({"Retries": -1})));
    let bad = api.post_json("/containers/create", &bad).expect(400);
    assert_eq!(bad.message(), "Retries in Healthcheck cannot be negative");
}

#[test]
fn checks_go_on_after_the_engine_was_away() {
    let stack = Stack::from_environment().with_busybox().argument("--live-restore=true").start();
    let api = stack.api();
    let mut events = Events::of(&stack);
    api.run(NAME, &checked(&file_check()));
    in_container(&stack, NAME, "touch /ok");
    // What is told is written down.
    events.until("health_status: healthy");
    stack.kill_engine();
    stack.start_engine();
    // dockerd begins anew; ours knows what it knew.
    let known = health(&stack)["Status"].clone();
    if stack.is_stock() {
        // What it knows depends on when it wrote last, and it does not go on.
        assert!(["starting", "healthy"].contains(&known.as_str().unwrap()), "{known}");
        return stack.end();
    }
    assert_eq!(known, "healthy");
    in_container(&stack, NAME, "rm /ok");
    until("it is not", || health(&stack)["Status"] == "unhealthy");
    in_container(&stack, NAME, "touch /ok");
    until("it is again", || health(&stack)["Status"] == "healthy");
    stack.end();
}
