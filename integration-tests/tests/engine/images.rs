//! Images: load, pull, list, inspect, history, tag, remove, import, prune.

use integration_tests::image::{archive, busybox_archive, busybox_layer, layer};
use integration_tests::pool::{Lease, lease};
use integration_tests::registry::Registry;
use serde_json::{Value, json};

use crate::{output, query, shell, sleeper, with};

const CREATED: &str = "2024-01-02T03:04:05Z";

fn config(more: Value) -> Value {
    with(
        json!({"created": CREATED, "config": {"Cmd": ["sh"]},
        "history": [{"created": CREATED, "created_by": "made for a test"}]}),
        more,
    )
}

/// Loads an image and gives its id; tests remove what they load.
fn load(stack: &Lease, name: &str, config: &Value, layers: &[Vec<u8>]) -> String {
    let tar = archive(name, config, layers);
    let answer = stack.api().post_bytes("/images/load?quiet=1", "application/x-tar", tar);
    let line = answer.expect(200).lines()[0]["stream"].as_str().unwrap().to_owned();
    assert_eq!(line, format!("Loaded image: {name}\n"));
    stack.api().get(&format!("/images/{name}/json")).expect(200).json()["Id"]
        .as_str()
        .unwrap()
        .to_owned()
}

fn remove(stack: &Lease, name: &str) {
    stack.api().delete(&format!("/images/{name}?force=1")).expect(200);
}

#[test]
fn a_loaded_image_is_listed_and_inspected() {
    let stack = lease();
    let api = stack.api();
    let more = json!({"author": "somebody", "config": {"Env": ["A=b"], "Labels": {"kind": "test"},
        "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/srv", "User": "daemon",
        "Entrypoint": ["/bin/sh", "-c"], "Cmd": ["echo $A $(pwd) $(id -u)"]}});
    let id = load(
        &stack,
        "test/loaded:1",
        &config(more),
        &[busybox_layer(), layer(&[("srv/", ""), ("srv/f", "x")])],
    );
    let told = api.get("/images/test/loaded:1/json").expect(200).json();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id}");
    assert_eq!(told["RepoTags"], json!(["test/loaded:1"]));
    assert_eq!(told["Created"], CREATED);
    assert_eq!(told["Author"], "somebody");
    assert_eq!(told["Os"], "linux");
    assert_eq!(told["Architecture"], integration_tests::image::architecture());
    assert_eq!(told["Config"]["Env"], json!(["A=b"]));
    assert_eq!(told["Config"]["Labels"], json!({"kind": "test"}));
    assert_eq!(told["Config"]["WorkingDir"], "/srv");
    assert_eq!(told["RootFS"]["Type"], "layers");
    assert_eq!(told["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    let size = told["Size"].as_u64().unwrap();
    assert!(size > 100_000, "{size}");
    for name in [&id, &id[7..], &id[7..19], "test/loaded:1"] {
        assert_eq!(api.get(&format!("/images/{name}/json")).expect(200).json()["Id"], *id);
    }
    let ids = |filters: Value| {
        let list = api.get(&format!("/images/json?filters={}", query(&filters))).expect(200).json();
        list.as_array()
            .unwrap()
            .iter()
            .map(|i| i["Id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(ids(json!({"label": ["kind=test"]})), [&*id]);
    assert_eq!(ids(json!({"reference": ["test/*"]})), [&*id]);
    assert_eq!(ids(json!({"reference": ["test/*:2"]})), Vec::<String>::new());
    assert_eq!(ids(json!({"before": ["test/loaded:1"]})).len(), 1, "busybox is older");
    assert_eq!(ids(json!({"dangling": ["true"]})), Vec::<String>::new());
    let history = api.get("/images/test/loaded:1/history").expect(200).json();
    assert_eq!(history[0]["CreatedBy"], "made for a test");
    assert_eq!(history[0]["Tags"], json!(["test/loaded:1"]));
    assert_eq!(output(&stack, &json!({"Image": "test/loaded:1"})), "b /srv 1");
    assert_eq!(output(&stack, &json!({"Image": id, "Cmd": ["cat f"]})), "x");
    remove(&stack, "test/loaded:1");
    let gone = api.get("/images/test/loaded:1/json").expect(404);
    assert_eq!(gone.message(), "No such image: test/loaded:1");
}

#[test]
fn tags_come_and_go_and_the_last_takes_the_image() {
    let stack = lease();
    let api = stack.api();
    let id = load(&stack, "test/tags:1", &config(json!({"author": "tags"})), &[busybox_layer()]);
    api.post("/images/test/tags:1/tag?repo=localhost:5000/other&tag=two").expect(201);
    let tags = |name: &str| {
        let mut tags: Vec<String> = serde_json::from_value(
            api.get(&format!("/images/{name}/json")).expect(200).json()["RepoTags"].clone(),
        )
        .unwrap();
        tags.sort();
        tags
    };
    assert_eq!(tags(&id), ["localhost:5000/other:two", "test/tags:1"]);
    api.post("/images/test/tags:1/tag?repo=Bad&tag=x").expect(400);
    api.post("/images/nope/tag?repo=x&tag=x").expect(404);
    let ambiguous = api.delete(&format!("/images/{id}")).expect(409);
    assert!(ambiguous.message().contains("must be forced"), "{}", ambiguous.message());
    let first = api.delete("/images/test/tags:1").expect(200).json();
    assert_eq!(first, json!([{"Untagged": "test/tags:1"}]));
    assert_eq!(tags(&id), ["localhost:5000/other:two"]);
    let last = api.delete("/images/localhost:5000/other:two").expect(200).json();
    assert_eq!(last[0], json!({"Untagged": "localhost:5000/other:two"}));
    assert!(last.as_array().unwrap().contains(&json!({"Deleted": id})), "{last}");
    api.get(&format!("/images/{id}/json")).expect(404);
}

#[test]
fn an_image_in_use_stays() {
    let stack = lease();
    let api = stack.api();
    let id = load(&stack, "test/used:1", &config(json!({"author": "used"})), &[busybox_layer()]);
    let container = api.create("user", &with(sleeper(), json!({"Image": "test/used:1"})));
    let used = api.delete("/images/test/used:1").expect(409);
    assert!(
        used.message().contains(&format!("container {} is using", &container[..12])),
        "{}",
        used.message()
    );
    let list = api.get("/containers/json?all=1").expect(200).json();
    assert_eq!(list[0]["ImageID"], *id);
    api.post("/containers/user/start").expect(204);
    let running = api.delete(&format!("/images/{id}?force=1")).expect(409);
    assert!(running.message().contains("cannot be forced"), "{}", running.message());
    api.delete("/containers/user?force=1").expect(204);
    remove(&stack, "test/used:1");
}

#[test]
fn an_import_is_a_file_system_with_changes() {
    let stack = lease();
    let api = stack.api();
    let path = "/images/create?fromSrc=-&repo=test/imported&tag=1&message=from%20a%20test\
        &changes=ENV%20A%3Db&changes=CMD%20%5B%22sh%22%2C%22-c%22%2C%22echo%20%24A%22%5D";
    let answer = api.post_bytes(path, "application/x-tar", busybox_layer()).expect(200);
    let lines = answer.lines();
    let id = lines.last().unwrap()["status"].as_str().unwrap().to_owned();
    assert!(id.starts_with("sha256:"), "{lines:?}");
    let told = api.get("/images/test/imported:1/json").expect(200).json();
    assert_eq!(told["Id"], *id);
    assert_eq!(told["Comment"], "from a test");
    assert_eq!(told["RootFS"]["Layers"].as_array().unwrap().len(), 1);
    assert_eq!(output(&stack, &json!({"Image": "test/imported:1"})), "b");
    let bad = api.post_bytes(
        "/images/create?fromSrc=-&repo=x&changes=NOPE%20x",
        "application/x-tar",
        vec![],
    );
    assert_eq!(bad.status, 400, "{}", bad.text());
    remove(&stack, "test/imported:1");
}

#[test]
fn a_pull_asks_the_registry_and_tells_what_it_does() {
    let stack = lease();
    let api = stack.api();
    let registry = Registry::start(stack.sandbox());
    let layers = [busybox_layer(), layer(&[("greeting", "hello")])];
    let digest = registry.push("some/where", "v1", &config(json!({})), &layers);
    let name = format!("{}/some/where", registry.host);
    let pull = |tag: &str| {
        let answer = api.post(&format!("/images/create?fromImage={name}&tag={tag}")).expect(200);
        answer.lines()
    };
    let lines = pull("v1");
    let statuses: Vec<&str> = lines.iter().filter_map(|line| line["status"].as_str()).collect();
    assert_eq!(statuses[0], "Pulling from some/where");
    assert_eq!(lines[0]["id"], "v1");
    assert!(statuses.contains(&"Pull complete"), "{statuses:?}");
    assert_eq!(statuses[statuses.len() - 2], format!("Digest: {digest}"));
    assert_eq!(statuses.last().unwrap(), &format!("Status: Downloaded newer image for {name}:v1"));
    let told = api.get(&format!("/images/{name}:v1/json")).expect(200).json();
    assert_eq!(told["RepoTags"], json!([format!("{name}:v1")]));
    assert_eq!(told["RepoDigests"], json!([format!("{name}@{digest}")]));
    assert_eq!(
        output(&stack, &json!({"Image": format!("{name}:v1"), "Cmd": ["cat", "/greeting"]})),
        "hello"
    );
    let before = registry.asked().len();
    let again = pull("v1");
    let status = again.last().unwrap()["status"].as_str().unwrap();
    assert_eq!(status, format!("Status: Image is up to date for {name}:v1"));
    assert!(registry.asked()[before..].iter().all(|asked| !asked.contains("/blobs/")));
    // By digest; nothing new is fetched either.
    let before = registry.asked().len();
    let lines = pull(&digest);
    let status = lines.last().unwrap()["status"].as_str().unwrap();
    assert_eq!(status, format!("Status: Image is up to date for {name}@{digest}"));
    assert!(registry.asked()[before..].iter().all(|asked| !asked.contains("/blobs/")));
    // The tag moves on.
    let newer = registry.push("some/where", "v1", &config(json!({"author": "x"})), &layers);
    assert_ne!(newer, digest);
    let lines = pull("v1");
    assert_eq!(
        lines.last().unwrap()["status"],
        format!("Status: Downloaded newer image for {name}:v1")
    );
    let told = api.get(&format!("/images/{name}:v1/json")).expect(200).json();
    assert_eq!(told["Author"], "x");
    for image in api.get("/images/json").expect(200).json().as_array().unwrap() {
        if image["RepoDigests"].to_string().contains("some/where") {
            remove(&stack, image["Id"].as_str().unwrap());
        }
    }
}

#[test]
fn a_pull_of_what_is_not_there_is_an_error_in_words() {
    let stack = lease();
    let api = stack.api();
    let registry = Registry::start(stack.sandbox());
    let missing = api.post(&format!("/images/create?fromImage={}/no/such&tag=v1", registry.host));
    let text = missing.text();
    // Nothing was said yet, so the status can tell.
    assert_eq!(missing.status, 404, "{text}");
    assert!(missing.message().contains("not found"), "{text}");
    let bad = api.post("/images/create?fromImage=Bad/Name&tag=v1").expect(400);
    assert!(bad.message().contains("must be lowercase"), "{}", bad.message());
    // A blob that does not have its digest is refused in the stream.
    let data = layer(&[("x", "content")]);
    let blob = integration_tests::image::digest(&data);
    registry.push("bad/blob", "v1", &config(json!({})), &[data]);
    registry.corrupt(&format!("bad/blob/blobs/{blob}"));
    let answer = api
        .post(&format!("/images/create?fromImage={}/bad/blob&tag=v1", registry.host))
        .expect(200);
    assert!(
        answer.lines().last().unwrap()["errorDetail"]["message"].is_string(),
        "{}",
        answer.text()
    );
    api.get(&format!("/images/{}/bad/blob:v1/json", registry.host)).expect(404);
}

#[test]
fn loading_twice_changes_nothing() {
    let stack = lease();
    let api = stack.api();
    let before = api.get("/images/busybox/json").expect(200).json();
    let tar = std::fs::read(busybox_archive()).unwrap();
    api.post_bytes("/images/load?quiet=1", "application/x-tar", tar).expect(200);
    assert_eq!(api.get("/images/busybox/json").expect(200).json()["Id"], before["Id"]);
    assert_eq!(api.get("/images/json").expect(200).json().as_array().unwrap().len(), 1);
    assert_eq!(output(&stack, &shell("cat /var/www/index.html")), "made by a private stack");
}

#[test]
fn prune_takes_what_has_no_name_and_no_container() {
    let stack = lease();
    let api = stack.api();
    let image = |author: &str| config(json!({"author": author, "config": {"Labels": {"k": "v"}}}));
    let nameless = || -> Vec<String> {
        let path = format!("/images/json?filters={}", query(&json!({"dangling": ["true"]})));
        let list = api.get(&path).expect(200).json();
        let ids = list.as_array().unwrap().iter();
        ids.map(|image| image["Id"].as_str().unwrap().to_owned()).collect()
    };
    let prune = |filters: Value| {
        let path = format!("/images/prune?filters={}", query(&filters));
        api.post(&path).expect(200).json()["ImagesDeleted"].clone()
    };
    // One that lost its name to another, and one that never had any.
    let first = load(&stack, "test/prune:1", &image("one"), &[busybox_layer()]);
    let tar = archive("test/prune:1", &image("two"), &[busybox_layer()]);
    api.post_bytes("/images/load?quiet=1", "application/x-tar", tar).expect(200);
    let second = api.get("/images/test/prune:1/json").expect(200).json()["Id"].clone();
    assert_ne!(second, first);
    assert_eq!(nameless(), [&*first]);
    let answer = api.post_bytes(
        "/images/create?fromSrc=-&changes=LABEL%20k%3Dv",
        "application/x-tar",
        layer(&[("a", "b")]),
    );
    let line = answer.expect(200).lines().pop().unwrap();
    let third = line["status"].as_str().unwrap().to_owned();
    assert_eq!(nameless().len(), 2);
    let told = api.get(&format!("/images/{third}/json")).expect(200).json();
    assert_eq!(told["RepoTags"], json!([]));
    // Not what filters leave out, and not what a container was made of.
    assert_eq!(prune(json!({"label": ["k=other"]})), Value::Null);
    assert_eq!(prune(json!({"until": ["2020-01-01T00:00:00Z"]})), Value::Null);
    let body = json!({"Image": third, "Cmd": ["x"]});
    api.create("user", &body);
    assert!(prune(json!({})).to_string().contains(&first), "{first}");
    assert_eq!(nameless(), [&*third]);
    api.delete("/containers/user").expect(204);
    assert!(prune(json!({"dangling": ["1"], "label": ["k=v"]})).to_string().contains(&third));
    assert_eq!(nameless(), Vec::<String>::new());
    assert_eq!(prune(json!({})), Value::Null);
    api.get(&format!("/images/{third}/json")).expect(404);
    // What has a name goes only when that is asked for.
    api.create("user", &sleeper());
    let deleted = prune(json!({"dangling": ["false"]}));
    assert_eq!(deleted[0], json!({"Untagged": "test/prune:1"}));
    assert!(deleted.as_array().unwrap().contains(&json!({"Deleted": second})), "{deleted}");
    api.get("/images/busybox/json").expect(200);
    let bad = api.post(&format!("/images/prune?filters={}", query(&json!({"nope": ["x"]}))));
    bad.expect(400);
}

/// Names of all files below a directory of the stack that lie in one called `part`.
fn files(directory: &std::path::Path, part: &str, found: &mut std::collections::BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files(&path, part, found);
        } else if path.components().any(|component| component.as_os_str() == part) {
            found.insert(path.display().to_string());
        }
    }
}

#[test]
fn nothing_of_a_broken_archive_stays() {
    let stack = integration_tests::Stack::ours().with_busybox().start();
    let api = stack.api();
    let stored = || {
        let mut found = std::collections::BTreeSet::new();
        for part in ["blobs", "ingest", "snapshots"] {
            files(&stack.data_root().join("containerd"), part, &mut found);
        }
        found
    };
    let load = |bytes: Vec<u8>| api.post_bytes("/images/load?quiet=1", "application/x-tar", bytes);
    // A load that fails collects before it answers: what the good ones left goes, too.
    assert!(load(b"no archive at all".repeat(100)).status >= 400);
    let before = stored();
    assert!(before.len() >= 3, "{before:?}");
    let layers = || [layer(&[("a", "one")]), layer(&[("b", &"two".repeat(100_000))])];
    let whole = archive("test/broken:1", &config(json!({"author": "broken"})), &layers());
    let escaping = {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..4].copy_from_slice(b"../x");
        header.set_mode(0o644);
        header.set_size(0);
        header.set_cksum();
        let mut layer = header.as_bytes().to_vec();
        layer.resize(512 + 1024, 0);
        layer
    };
    let mut many: Vec<_> = (0..8).map(|n| layer(&[("a", &n.to_string().repeat(9999))])).collect();
    many.insert(4, escaping);
    let climbing = archive("test/broken:1", &config(json!({})), &many);
    let broken_config = archive("test/broken:1", &json!({"config": 7}), &layers());
    let rows = [
        ("cut in a layer", whole[..200_000].to_vec()),
        ("cut before the manifest", whole[..whole.len() - 4096].to_vec()),
        ("a layer among many that climbs out", climbing),
        ("a config that is none", broken_config),
    ];
    for (what, bytes) in rows {
        let answer = load(bytes);
        assert!(answer.status >= 400, "{what}: {}", answer.text());
        assert_eq!(stored(), before, "{what}");
    }
    // A client that leaves in the middle.
    let head = format!(
        "POST /v1.41/images/load HTTP/1.1\r\nHost: docker\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        whole.len()
    );
    let mut socket = std::os::unix::net::UnixStream::connect(stack.socket()).unwrap();
    std::io::Write::write_all(&mut socket, head.as_bytes()).unwrap();
    std::io::Write::write_all(&mut socket, &whole[..200_000]).unwrap();
    integration_tests::sandbox::until("something is stored", || stored() != before);
    drop(socket);
    integration_tests::sandbox::until("nothing is left of it", || stored() == before);
    assert_eq!(api.get("/images/json").expect(200).json().as_array().unwrap().len(), 1);
    stack.end();
}
