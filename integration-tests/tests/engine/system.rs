//! `/_ping`, `/version`, `/info`, `/events`, and what is no route.

use integration_tests::pool::{Lease, lease};
use serde_json::{Value, json};

use crate::{PATIENT, query, ready, shell, sleeper, with};

#[test]
fn a_ping_is_answered_with_the_versions() {
    let stack = lease();
    let api = stack.api();
    let ping = api.get("/_ping").expect(200);
    assert_eq!(ping.text(), "OK");
    assert!(ping.header("content-type").starts_with("text/plain"));
    assert_eq!(ping.header("ostype"), "linux");
    assert_eq!(ping.header("docker-experimental"), "false");
    assert_eq!(ping.header("cache-control"), "no-cache, no-store, must-revalidate");
    // 20.10 says none either, unless it is configured to.
    assert_eq!(ping.headers.get("builder-version"), None);
    let version = ping.header("api-version");
    let head = api.head("/_ping").expect(200);
    assert!(head.body.is_empty());
    assert_eq!(head.header("api-version"), version);
    let told = api.get("/version").expect(200).json();
    assert_eq!(told["ApiVersion"], *version);
    assert_eq!(told["Os"], "linux");
    assert_eq!(told["Arch"], integration_tests::image::architecture());
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!(told["KernelVersion"], kernel.trim());
    let components = told["Components"].as_array().unwrap();
    assert_eq!(components[0]["Name"], "Engine");
    assert_eq!(components[0]["Version"], told["Version"]);
    assert!(components.iter().any(|component| component["Name"] == "containerd"), "{told}");
}

#[test]
fn versions_that_are_not_spoken_are_refused() {
    let stack = lease();
    let api = stack.api();
    let new = api.get("/v9.99/info").expect(400);
    assert!(
        new.message()
            .starts_with("client version 9.99 is too new. Maximum supported API version is 1."),
        "{}",
        new.message()
    );
    let old = api.get("/v1.1/info").expect(400);
    assert!(
        old.message()
            .starts_with("client version 1.1 is too old. Minimum supported API version is 1."),
        "{}",
        old.message()
    );
    assert_eq!(api.get("/nothing").expect(404).message(), "page not found");
    let bad = api.post_bytes("/containers/create", "application/json", b"{".to_vec());
    assert_eq!(bad.status, 400, "{}", bad.text());
}

#[test]
fn info_counts_and_describes() {
    let stack = lease();
    let api = stack.api();
    ready(&stack, "runs", &shell(PATIENT));
    ready(&stack, "stands", &shell(PATIENT));
    api.post("/containers/stands/pause").expect(204);
    api.create("waits", &sleeper());
    let info = api.get("/info").expect(200).json();
    assert_eq!(info["Containers"], 3);
    assert_eq!(info["ContainersRunning"], 1);
    assert_eq!(info["ContainersPaused"], 1);
    assert_eq!(info["ContainersStopped"], 1);
    assert_eq!(info["Images"], 1);
    assert_eq!(info["DockerRootDir"], stack.data_root().display().to_string());
    assert_eq!(info["OSType"], "linux");
    assert_eq!(info["NCPU"], std::thread::available_parallelism().unwrap().get());
    assert_eq!(info["LoggingDriver"], "json-file");
    assert_eq!(info["CgroupDriver"], "cgroupfs");
    assert_eq!(info["MemoryLimit"], true);
    assert_eq!(info["PidsLimit"], true);
    assert_eq!(info["DefaultRuntime"], "runc");
    assert!(info["Runtimes"]["runc"].is_object(), "{info}");
    assert_eq!(info["Swarm"]["LocalNodeState"], "inactive");
    assert!(info["SecurityOptions"].to_string().contains("name=seccomp"), "{info}");
    assert!(info["Plugins"]["Network"].to_string().contains("bridge"), "{info}");
    assert!(info["MemTotal"].as_u64().unwrap() > 1 << 28);
    api.post("/containers/stands/unpause").expect(204);
}

/// `container create name`, with what the attributes say of an end.
fn word(event: &Value) -> String {
    let attributes = &event["Actor"]["Attributes"];
    let mut word =
        format!("{} {}", event["Type"].as_str().unwrap(), event["Action"].as_str().unwrap());
    for key in ["exitCode", "signal"] {
        if let Some(value) = attributes[key].as_str() {
            word += &format!(" {key}={value}");
        }
    }
    word
}

fn words(stack: &Lease, query: &str) -> Vec<String> {
    stack.api().get(&format!("/events?{query}")).expect(200).lines().iter().map(word).collect()
}

fn now() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{}.{:09}", now.as_secs(), now.subsec_nanos())
}

#[test]
fn the_life_of_a_container_is_told_in_order() {
    let stack = lease();
    let api = stack.api();
    let since = now();
    let mut live = api.open(&format!("/events?since={since}"));
    let id = ready(&stack, "told", &with(shell(PATIENT), json!({"Labels": {"l": "v"}})));
    api.post("/containers/told/pause").expect(204);
    api.post("/containers/told/unpause").expect(204);
    api.post("/containers/told/rename?name=renamed").expect(204);
    api.post("/containers/renamed/kill?signal=USR1").expect(204);
    api.post("/containers/renamed/stop").expect(204);
    api.delete("/containers/renamed").expect(204);
    let until = now();
    let filters = query(&json!({"type": ["container"]}));
    let wanted = [
        "container create",
        "container start",
        "container pause",
        "container unpause",
        "container rename",
        "container kill signal=10",
        "container kill signal=15",
        "container die exitCode=7",
        "container destroy",
    ];
    let mut told = words(&stack, &format!("since={since}&until={until}&filters={filters}"));
    // Where "stop" stands depends on who is faster.
    told.retain(|word| word != "container stop");
    assert_eq!(told, wanted);
    let mut seen = Vec::new();
    while seen.last().is_none_or(|last| last != "container destroy") {
        let event = live.value().unwrap();
        if event["Type"] == "container" {
            assert_eq!(event["Actor"]["ID"], *id);
            assert_eq!(event["Actor"]["Attributes"]["image"], "busybox");
            assert_eq!(event["Actor"]["Attributes"]["l"], "v");
            assert_eq!(event["scope"], "local");
            assert_eq!((&event["id"], &event["from"]), (&json!(id), &json!("busybox")));
            assert_eq!(
                event["timeNano"].as_i64().unwrap() / 1_000_000_000,
                event["time"].as_i64().unwrap()
            );
        }
        seen.push(word(&event));
    }
    // The network's own come in between.
    assert!(seen.contains(&"network connect".to_owned()), "{seen:?}");
    assert!(seen.contains(&"network disconnect".to_owned()), "{seen:?}");
    let only = |filters: Value| {
        words(&stack, &format!("since={since}&until={until}&filters={}", query(&filters)))
    };
    assert_eq!(only(json!({"event": ["die"]})), ["container die exitCode=7"]);
    assert_eq!(
        only(json!({"container": [&id], "event": ["start", "die"]})),
        ["container start", "container die exitCode=7"]
    );
    assert_eq!(only(json!({"label": ["l=v"], "event": ["create"]})), ["container create"]);
    assert_eq!(only(json!({"label": ["l=x"]})), Vec::<String>::new());
    assert_eq!(only(json!({"image": ["busybox"], "event": ["destroy"]})), ["container destroy"]);
}

#[test]
fn images_and_volumes_have_events_too() {
    let stack = lease();
    let api = stack.api();
    let since = now();
    api.post("/images/busybox/tag?repo=test/events&tag=1").expect(201);
    api.delete("/images/test/events:1").expect(200);
    api.post_json("/volumes/create", &json!({"Name": "evented"})).expect(201);
    api.delete("/volumes/evented").expect(204);
    let told = words(&stack, &format!("since={since}&until={}", now()));
    assert_eq!(told, ["image tag", "image untag", "volume create", "volume destroy"]);
}

#[test]
fn execs_have_events_too() {
    let stack = lease();
    let api = stack.api();
    api.run("c1", &sleeper());
    let since = now();
    crate::in_container(&stack, "c1", "true");
    let filters = query(&json!({"type": ["container"]}));
    let path = format!("/events?since={since}&filters={filters}");
    let mut live = api.open(&path);
    let told: Vec<String> = (0..3).map(|_| word(&live.value().unwrap())).collect();
    assert_eq!(
        told,
        [
            "container exec_create: sh -c true",
            "container exec_start: sh -c true",
            "container exec_die exitCode=0"
        ]
    );
}
