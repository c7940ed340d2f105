//! Containers: create, inspect, list, rename, remove, prune, top, update.

use integration_tests::image::{archive, busybox_layer, layer};
use integration_tests::pool::lease;
use serde_json::{Value, json};

use crate::{PATIENT, query, ready, shell, sleeper, with};

#[test]
fn inspect_gives_back_what_create_was_told() {
    let stack = lease();
    let api = stack.api();
    let body = json!({
        "Image": "busybox", "Cmd": ["sleep", "1000"], "Env": ["A=b", "C="], "WorkingDir": "/tmp",
        "Hostname": "host", "Domainname": "example.org", "User": "daemon", "Labels": {"l": "1"},
        "StopSignal": "SIGQUIT", "StopTimeout": 3, "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"Memory": 67_108_864, "NanoCpus": 500_000_000, "PidsLimit": 50,
            "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
            "CapAdd": ["NET_ADMIN"], "DnsSearch": ["example.org"], "NetworkMode": "none"},
    });
    let id = api.create("told", &body);
    let told = api.inspect("told");
    assert_eq!(told["Id"], *id);
    assert_eq!(told["Name"], "/told");
    assert_eq!(told["Path"], "sleep");
    assert_eq!(told["Args"], json!(["1000"]));
    assert_eq!(told["State"]["Status"], "created");
    assert_eq!(told["State"]["Running"], false);
    assert_eq!(told["State"]["StartedAt"], "0001-01-01T00:00:00Z");
    assert_eq!(told["RestartCount"], 0);
    assert_eq!(told["Platform"], "linux");
    let config = &told["Config"];
    for key in ["Cmd", "WorkingDir", "Hostname", "Domainname", "User", "Labels", "StopSignal"] {
        assert_eq!(config[key], body[key], "{key}");
    }
    assert_eq!(config["StopTimeout"], 3);
    assert_eq!(config["ExposedPorts"], json!({"80/tcp": {}}));
    // The image's variables come after the container's.
    assert_eq!(
        config["Env"],
        json!(["A=b", "C=", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"])
    );
    let host = &told["HostConfig"];
    for key in ["Memory", "NanoCpus", "PidsLimit", "RestartPolicy", "NetworkMode", "DnsSearch"] {
        assert_eq!(host[key], body["HostConfig"][key], "{key}");
    }
    assert_eq!(host["ShmSize"], 67_108_864);
    assert_eq!(host["IpcMode"], "private");
    assert_eq!(host["LogConfig"]["Type"], "json-file");
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
}

#[test]
fn the_list_tells_states_names_commands_and_labels() {
    let stack = lease();
    let api = stack.api();
    let created = api.create("one", &with(sleeper(), json!({"Labels": {"k": "v"}})));
    let running = api.run("two", &sleeper());
    let ended = api.run("three", &shell("exit 3"));
    api.wait(&ended);
    let ids = |path: &str| -> Vec<String> {
        let list = api.get(path).expect(200).json();
        list.as_array().unwrap().iter().map(|c| c["Id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids("/containers/json"), [&*running]);
    // Newest first.
    assert_eq!(ids("/containers/json?all=1"), [ended.clone(), running.clone(), created.clone()]);
    assert_eq!(ids("/containers/json?limit=1"), [&*ended]);
    let filtered =
        |filters: Value| ids(&format!("/containers/json?all=1&filters={}", query(&filters)));
    assert_eq!(filtered(json!({"label": ["k=v"]})), [&*created]);
    assert_eq!(filtered(json!({"label": ["k=other"]})), Vec::<String>::new());
    assert_eq!(filtered(json!({"name": ["^/tw"]})), [&*running]);
    assert_eq!(filtered(json!({"status": ["exited"]})), [&*ended]);
    assert_eq!(filtered(json!({"exited": ["3"]})), [&*ended]);
    assert_eq!(filtered(json!({"id": [&created[..12]]})), [&*created]);
    assert_eq!(filtered(json!({"ancestor": ["busybox"]})).len(), 3);
    assert_eq!(filtered(json!({"before": ["two"]})), [&*created]);
    assert_eq!(filtered(json!({"since": ["two"]})), [&*ended]);
    assert_eq!(filtered(json!({"network": ["bridge"]})).len(), 3);
    let bad = api.get(&format!("/containers/json?filters={}", query(&json!({"nope": ["x"]}))));
    assert_eq!(bad.status, 400);
    let list = api.get("/containers/json?all=1").expect(200).json();
    let [ended, running, created] = [&list[0], &list[1], &list[2]];
    assert_eq!(created["Names"], json!(["/one"]));
    assert_eq!(created["State"], "created");
    assert_eq!(created["Status"], "Created");
    assert_eq!(created["Labels"], json!({"k": "v"}));
    assert_eq!(running["Image"], "busybox");
    assert_eq!(running["Command"], "sleep 1000");
    assert_eq!(running["State"], "running");
    assert!(running["Status"].as_str().unwrap().starts_with("Up "), "{running}");
    assert!(running["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] != "", "{running}");
    assert_eq!(ended["Command"], "sh -c 'exit 3'");
    assert!(ended["Status"].as_str().unwrap().starts_with("Exited (3) "), "{ended}");
}

#[test]
fn names_are_unique_and_can_be_changed() {
    let stack = lease();
    let api = stack.api();
    let first = api.create("first", &sleeper());
    let second = api.create("second", &sleeper());
    let taken = api.post_json("/containers/create?name=first", &sleeper()).expect(409);
    assert_eq!(
        taken.message(),
        format!(
            "Conflict. The container name \"/first\" is already in use by container \"{first}\". \
             You have to remove (or rename) that container to be able to reuse that name."
        )
    );
    let taken = api.post("/containers/second/rename?name=first").expect(409);
    assert!(taken.message().contains("already in use by container"), "{}", taken.message());
    api.post("/containers/second/rename?name=third").expect(204);
    assert_eq!(api.inspect("third")["Id"], *second);
    assert_eq!(api.inspect(&second)["Name"], "/third");
    api.get("/containers/second/json").expect(404);
    // The name is free again.
    api.create("second", &sleeper());
    api.post("/containers/third/rename?name=-bad").expect(400);
    assert_eq!(api.inspect(&second[..10])["Id"], *second, "by the beginning of its id");
}

#[test]
fn a_running_container_is_removed_by_force_only() {
    let stack = lease();
    let api = stack.api();
    let body = with(sleeper(), json!({"Volumes": {"/data": {}}}));
    let id = api.run("held", &body);
    let volume = api.inspect(&id)["Mounts"][0]["Name"].as_str().unwrap().to_owned();
    let held = api.delete("/containers/held").expect(409);
    let told = held.message().to_lowercase();
    assert!(told.contains("stop the container before"), "{told}");
    api.delete("/containers/held?force=1").expect(204);
    api.get("/containers/held/json").expect(404);
    assert_eq!(api.delete("/containers/held").expect(404).message(), "No such container: held");
    api.get(&format!("/volumes/{volume}")).expect(200);
    api.delete(&format!("/volumes/{volume}")).expect(204);
    let id = api.run("held", &body);
    let volume = api.inspect(&id)["Mounts"][0]["Name"].as_str().unwrap().to_owned();
    api.delete("/containers/held?force=1&v=1").expect(204);
    api.get(&format!("/volumes/{volume}")).expect(404);
}

#[test]
fn prune_removes_what_does_not_run() {
    let stack = lease();
    let api = stack.api();
    let running = api.run("runs", &sleeper());
    let created = api.create("waits", &with(sleeper(), json!({"Labels": {"keep": "no"}})));
    let ended = api.run("ended", &shell("echo x > /file"));
    api.wait(&ended);
    let kept =
        api.post(&format!("/containers/prune?filters={}", query(&json!({"label": ["keep=yes"]}))));
    assert_eq!(kept.expect(200).json()["ContainersDeleted"], Value::Null);
    let pruned = api.post("/containers/prune").expect(200).json();
    let mut deleted: Vec<&str> = pruned["ContainersDeleted"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    let mut wanted = vec![&*created, &*ended];
    deleted.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(deleted, wanted);
    assert!(pruned["SpaceReclaimed"].as_u64().unwrap() >= 2, "{pruned}");
    let left = api.get("/containers/json?all=1").expect(200).json();
    assert_eq!(left.as_array().unwrap().len(), 1);
    assert_eq!(left[0]["Id"], *running);
}

#[test]
fn top_tells_the_processes_as_the_host_sees_them() {
    let stack = lease();
    let api = stack.api();
    let id = ready(&stack, "busy", &shell(PATIENT));
    let top = api.get("/containers/busy/top").expect(200).json();
    let titles: Vec<&str> =
        top["Titles"].as_array().unwrap().iter().map(|t| t.as_str().unwrap()).collect();
    assert_eq!(titles, ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    let commands: Vec<&str> = top["Processes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| process.as_array().unwrap().last().unwrap().as_str().unwrap())
        .collect();
    assert!(commands.iter().any(|command| command.starts_with("sh -c trap")), "{commands:?}");
    assert!(commands.contains(&"sleep 1000"), "{commands:?}");
    let pids = top["Processes"].as_array().unwrap().iter().map(|process| &process[1]);
    let pid = api.inspect(&id)["State"]["Pid"].to_string();
    assert!(pids.into_iter().any(|found| *found == *pid), "{top} {pid}");
    let asked = api.get("/containers/busy/top?ps_args=-o%20pid,args").expect(200).json();
    assert_eq!(asked["Titles"], json!(["PID", "COMMAND"]));
    api.post("/containers/busy/kill").expect(204);
    api.wait(&id);
    let gone = api.get("/containers/busy/top").expect(409).message();
    assert!(gone.ends_with(&format!("ontainer {id} is not running")), "{gone}");
}

#[test]
fn a_container_that_removes_itself_is_gone_when_its_end_is_told() {
    let stack = lease();
    let api = stack.api();
    let body = with(shell("exit 4"), json!({"HostConfig": {"AutoRemove": true}}));
    let id = api.create("brief", &body);
    let removed = std::thread::spawn({
        let (api, id) = (api.clone(), id.clone());
        move || api.post(&format!("/containers/{id}/wait?condition=removed"))
    });
    // The waiter may come after the end; a container that is gone by then is a 404.
    api.post("/containers/brief/start").expect(204);
    let answer = removed.join().unwrap();
    if answer.status == 404 {
        assert_eq!(answer.message(), format!("No such container: {id}"));
    } else {
        assert_eq!(answer.expect(200).json()["StatusCode"], 4);
    }
    api.get("/containers/brief/json").expect(404);
}

#[test]
fn a_containers_size_is_that_of_the_files_it_wrote() {
    let stack = lease();
    let api = stack.api();
    let sizes = |name: &str| {
        let told = api.get(&format!("/containers/{name}/json?size=1")).expect(200).json();
        let listed = api.get("/containers/json?all=1&size=1").expect(200).json();
        let of = |row: &&Value| row["Id"] == told["Id"];
        let listed = listed.as_array().unwrap().iter().find(of).unwrap().clone();
        for member in ["SizeRw", "SizeRootFs"] {
            // Compat: a list leaves out what is 0.
            let in_list = listed.get(member).cloned().unwrap_or(json!(0));
            assert_eq!(told[member], in_list, "{member}");
        }
        (told["SizeRw"].as_i64().unwrap(), told["SizeRootFs"].as_i64().unwrap())
    };
    api.create("untouched", &sleeper());
    let (nothing, image) = sizes("untouched");
    assert_eq!(nothing, 0);
    assert!(image > 100_000, "{image}");
    // Directories, second names and holes need no bytes; what is removed gives none back.
    let script = "mkdir -p /d/e; printf 0123456789 >/d/f; ln /d/f /d/g; ln -s ffff /d/h; \
        truncate -s 1000000 /d/sparse; rm /bin/true";
    let id = api.run("wrote", &shell(script));
    assert_eq!(api.wait(&id), 0);
    let written = 10 + 4 + 1_000_000;
    assert_eq!(sizes("wrote"), (written, image + written));
    let pruned = api.post("/containers/prune").expect(200).json();
    assert_eq!(pruned["SpaceReclaimed"], written);
    assert_eq!(pruned["ContainersDeleted"].as_array().unwrap().len(), 2);
}

#[test]
fn the_size_of_a_root_has_every_layer_of_the_image() {
    let stack = lease();
    let api = stack.api();
    let more = layer(&[("more", &"x".repeat(50_000))]);
    let tar = archive("test/layers:1", &json!({}), &[busybox_layer(), more]);
    api.post_bytes("/images/load?quiet=1", "application/x-tar", tar).expect(200);
    let root = |image: &str| {
        let id = api.create("", &json!({"Image": image, "Cmd": ["true"]}));
        let told = api.get(&format!("/containers/{id}/json?size=1")).expect(200).json();
        api.delete(&format!("/containers/{id}")).expect(204);
        told["SizeRootFs"].as_i64().unwrap()
    };
    let (one, two) = (root("busybox"), root("test/layers:1"));
    // In blocks, and with directories, or in bytes.
    assert!((50_000..64_000).contains(&(two - one)), "{one} {two}");
    api.delete("/images/test/layers:1").expect(200);
}
