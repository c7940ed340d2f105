//! Volumes and binds: create, list, inspect, remove, prune, copy-up, propagation of modes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use integration_tests::image::{archive, busybox_layer, layer};
use integration_tests::pool::lease;
use serde_json::{Value, json};

use crate::{in_container, output, query, shell, sleeper, with};

#[test]
fn a_volume_lives_from_create_to_remove() {
    let stack = lease();
    let api = stack.api();
    let body = json!({"Name": "v1", "Labels": {"a": "b"}});
    let made = api.post_json("/volumes/create", &body).expect(201).json();
    assert_eq!(made["Name"], "v1");
    assert_eq!(made["Driver"], "local");
    assert_eq!(made["Scope"], "local");
    let place = made["Mountpoint"].as_str().unwrap().to_owned();
    assert_eq!(place, format!("{}/volumes/v1/_data", stack.data_root().display()));
    let again = api.post_json("/volumes/create", &body).expect(201).json();
    assert_eq!(again["CreatedAt"], made["CreatedAt"]);
    assert_eq!(api.get("/volumes/v1").expect(200).json()["Labels"], json!({"a": "b"}));
    let names = |filters: Value| {
        let list = api.get(&format!("/volumes?filters={}", query(&filters))).expect(200).json();
        let list = list["Volumes"].as_array().cloned().unwrap_or_default();
        list.iter().map(|v| v["Name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(json!({})), ["v1"]);
    assert_eq!(names(json!({"label": ["a=b"]})), ["v1"]);
    assert_eq!(names(json!({"label": ["a=c"]})), Vec::<String>::new());
    assert_eq!(names(json!({"dangling": ["true"]})), ["v1"]);
    let bind = json!({"HostConfig": {"Binds": ["v1:/data"]}});
    assert_eq!(
        output(&stack, &with(shell("echo kept > /data/f; cat /data/f"), bind.clone())),
        "kept"
    );
    assert_eq!(fs::read_to_string(format!("{place}/f")).unwrap(), "kept\n");
    let id = api.create("user", &with(sleeper(), bind));
    assert_eq!(names(json!({"dangling": ["true"]})), Vec::<String>::new());
    let used = api.delete("/volumes/v1").expect(409);
    assert_eq!(used.message(), format!("remove v1: volume is in use - [{id}]"));
    api.delete("/containers/user?v=1").expect(204);
    // A named volume is not the container's to take away.
    api.delete("/volumes/v1").expect(204);
    assert!(!std::path::Path::new(&place).exists());
    assert_eq!(api.get("/volumes/v1").expect(404).message(), "get v1: no such volume");
    api.post_json("/volumes/create", &json!({"Name": "/bad"})).expect(400);
}

#[test]
fn an_empty_volume_gets_what_the_image_has_there() {
    let stack = lease();
    let api = stack.api();
    let files = layer(&[("data/", ""), ("data/sub/", ""), ("data/sub/file", "from the image")]);
    let tar = archive(
        "test/copyup:1",
        &json!({"config": {"Volumes": {"/data": {}}}}),
        &[busybox_layer(), files],
    );
    api.post_bytes("/images/load?quiet=1", "application/x-tar", tar).expect(200);
    let image = json!({"Image": "test/copyup:1", "Cmd": ["cat", "/data/sub/file"]});
    let named = |volume: &str| {
        with(image.clone(), json!({"HostConfig": {"Binds": [format!("{volume}:/data")]}}))
    };
    // By the image's own declaration, into an anonymous volume.
    let id = api.run("anonymous", &image);
    api.wait(&id);
    let mount = api.inspect(&id)["Mounts"][0].clone();
    assert_eq!(mount["Type"], "volume");
    assert_eq!(mount["Destination"], "/data");
    assert_eq!(mount["RW"], true);
    assert_eq!(mount["Name"].as_str().unwrap().len(), 64);
    assert_eq!(
        api.get("/containers/anonymous/logs?stdout=1").expect(200).streams().0,
        "from the image"
    );
    api.delete("/containers/anonymous?v=1").expect(204);
    assert_eq!(output(&stack, &named("up")), "from the image");
    assert_eq!(
        output(
            &stack,
            &with(named("up"), json!({"Cmd": ["sh", "-c", "echo changed > /data/sub/file"]}))
        ),
        ""
    );
    assert_eq!(output(&stack, &named("up")), "changed", "only an empty one is filled");
    let (code, _, err) =
        crate::run(&stack, &named("up2:/data:nocopy").clone().take_bind("up2:/data:nocopy"));
    assert!(code != 0 && err.contains("No such file"), "{code} {err}");
    api.delete("/volumes/up").expect(204);
    api.delete("/volumes/up2").expect(204);
    api.delete("/images/test/copyup:1?force=1").expect(200);
}

trait TakeBind {
    fn take_bind(self, bind: &str) -> Value;
}

impl TakeBind for Value {
    fn take_bind(mut self, bind: &str) -> Value {
        self["HostConfig"]["Binds"] = json!([bind]);
        self
    }
}

#[test]
fn binds_show_the_hosts_files() {
    let stack = lease();
    let api = stack.api();
    let host = stack.root().join("bound");
    fs::create_dir(&host).unwrap();
    fs::write(host.join("f"), "from the host\n").unwrap();
    let at = host.display();
    let bind = |options: &str| json!({"HostConfig": {"Binds": [format!("{at}:/mnt{options}")]}});
    assert_eq!(
        output(&stack, &with(shell("cat /mnt/f; echo x > /mnt/g"), bind(""))),
        "from the host"
    );
    assert_eq!(fs::read_to_string(host.join("g")).unwrap(), "x\n");
    let (code, _, err) = crate::run(&stack, &with(shell("echo x > /mnt/h"), bind(":ro")));
    assert!(code != 0 && err.contains("Read-only file system"), "{err}");
    let id = api.create("c1", &with(sleeper(), bind(":ro,rslave")));
    let mount = api.inspect(&id)["Mounts"][0].clone();
    assert_eq!(
        mount,
        json!({"Type": "bind", "Source": host, "Destination": "/mnt", "Mode": "ro,rslave", "RW": false,
            "Propagation": "rslave"})
    );
    // A missing directory is made by -v and refused by --mount.
    let missing = stack.root().join("missing");
    let body = with(
        shell("ls -d /mnt"),
        json!({"HostConfig": {"Binds": [format!("{}:/mnt", missing.display())]}}),
    );
    assert_eq!(output(&stack, &body), "/mnt");
    assert!(missing.is_dir());
    fs::remove_dir(&missing).unwrap();
    let mount =
        json!({"HostConfig": {"Mounts": [{"Type": "bind", "Source": missing, "Target": "/mnt"}]}});
    let refused = api.post_json("/containers/create", &with(sleeper(), mount)).expect(400);
    assert_eq!(
        refused.message(),
        format!(
            "invalid mount config for type \"bind\": bind source path does not exist: {}",
            missing.display()
        )
    );
    // A file can be bound, too.
    let body = with(
        shell("cat /etc/file"),
        json!({"HostConfig": {"Binds": [format!("{at}/f:/etc/file")]}}),
    );
    assert_eq!(output(&stack, &body), "from the host");
    fs::remove_dir_all(&host).unwrap();
}

#[test]
fn mounts_of_every_type() {
    let stack = lease();
    let api = stack.api();
    let mounts = json!([
        {"Type": "volume", "Source": "named", "Target": "/named", "VolumeOptions": {"Labels": {"x": "y"}}},
        {"Type": "volume", "Target": "/anonymous"},
        {"Type": "tmpfs", "Target": "/memory", "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 0o1700}},
        {"Type": "bind", "Source": stack.root(), "Target": "/bound", "ReadOnly": true},
    ]);
    let id = api.run("c1", &with(sleeper(), json!({"HostConfig": {"Mounts": mounts}})));
    let shown =
        in_container(&stack, "c1", "grep -E ' /(named|anonymous|memory|bound) ' /proc/mounts");
    let line = |target: &str| {
        let line = shown.lines().find(|line| line.contains(&format!(" /{target} ")));
        line.unwrap_or_else(|| panic!("{target}: {shown}")).to_owned()
    };
    assert!(line("memory").contains("size=1024k"), "{shown}");
    assert!(line("memory").contains("mode=1700"), "{shown}");
    assert!(line("bound").contains(" ro,"), "{shown}");
    assert!(line("named").contains(" rw,"), "{shown}");
    let mut told: Vec<(String, String)> = api.inspect(&id)["Mounts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| {
            (m["Destination"].as_str().unwrap().to_owned(), m["Type"].as_str().unwrap().to_owned())
        })
        .collect();
    told.sort();
    let told: Vec<(&str, &str)> = told.iter().map(|(a, b)| (&**a, &**b)).collect();
    assert_eq!(
        told,
        [("/anonymous", "volume"), ("/bound", "bind"), ("/memory", "tmpfs"), ("/named", "volume")]
    );
    assert_eq!(api.get("/volumes/named").expect(200).json()["Labels"], json!({"x": "y"}));
    api.delete("/containers/c1?force=1&v=1").expect(204);
    // Those of a volume that is there stay as they are.
    let other = json!([{"Type": "volume", "Source": "named", "Target": "/named",
        "VolumeOptions": {"Labels": {"another": "one"}}}]);
    api.create("c2", &with(sleeper(), json!({"HostConfig": {"Mounts": other}})));
    assert_eq!(api.get("/volumes/named").expect(200).json()["Labels"], json!({"x": "y"}));
    api.delete("/containers/c2").expect(204);
    api.delete("/volumes/named").expect(204);
}

#[test]
fn volumes_from_another_container() {
    let stack = lease();
    let api = stack.api();
    api.create("first", &with(sleeper(), json!({"HostConfig": {"Binds": ["shared:/data"]}})));
    let from = |what: &str| json!({"HostConfig": {"VolumesFrom": [what]}});
    assert_eq!(output(&stack, &with(shell("echo x > /data/f; cat /data/f"), from("first"))), "x");
    let (code, _, err) = crate::run(&stack, &with(shell("echo y > /data/f"), from("first:ro")));
    assert!(code != 0 && err.contains("Read-only"), "{err}");
    api.delete("/containers/first").expect(204);
    api.delete("/volumes/shared").expect(204);
}

#[test]
fn a_volume_of_a_file_system_is_mounted_while_it_is_used() {
    let stack = lease();
    let api = stack.api();
    let options = json!({"Name": "mem", "DriverOpts": {"type": "tmpfs", "device": "tmpfs", "o": "size=2m,uid=1,mode=750"}});
    api.post_json("/volumes/create", &options).expect(201);
    let bind = json!({"HostConfig": {"Binds": ["mem:/mem"]}});
    let shown =
        output(&stack, &with(shell("grep ' /mem ' /proc/mounts; stat -c '%u %a' /mem"), bind));
    assert!(shown.contains("size=2048k"), "{shown}");
    assert!(shown.ends_with("1 750"), "{shown}");
    api.delete("/volumes/mem").expect(204);
}

#[test]
fn prune_takes_the_unused() {
    let stack = lease();
    let api = stack.api();
    for name in ["used", "unused"] {
        api.post_json("/volumes/create", &json!({"Name": name})).expect(201);
    }
    api.create("c1", &with(sleeper(), json!({"HostConfig": {"Binds": ["used:/data"]}})));
    let options = json!({"Name": "mem", "DriverOpts": {"type": "tmpfs", "device": "tmpfs"}});
    api.post_json("/volumes/create", &options).expect(201);
    let pruned = api.post("/volumes/prune").expect(200).json();
    assert_eq!(pruned["VolumesDeleted"], json!(["unused"]), "what has options stays");
    api.get("/volumes/used").expect(200);
    api.delete("/containers/c1").expect(204);
    api.delete("/volumes/used").expect(204);
    api.delete("/volumes/mem").expect(204);
}

#[test]
fn a_volumes_directory_is_roots_and_open() {
    let stack = lease();
    let api = stack.api();
    let made = api.post_json("/volumes/create", &json!({"Name": "modes"})).expect(201).json();
    let data = fs::metadata(made["Mountpoint"].as_str().unwrap()).unwrap();
    assert_eq!((data.uid(), data.gid(), data.permissions().mode() & 0o7777), (0, 0, 0o755));
    api.delete("/volumes/modes").expect(204);
}
