//! The systemd driver, before a systemd of our own: what it is asked for is compared field by field.

mod attach;
mod dbus;
mod manager;
mod ruled;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::bundle::{Bundle, ours_only, stderr, unified};
use manager::Mood;
use ruled::{Ruled, expanded, sorted};

fn property(properties: &Value, name: &str) -> Value {
    let all = properties.as_array().unwrap();
    all.iter().find(|property| property[0] == name).map_or(Value::Null, |found| found[1].clone())
}

fn accounting() -> &'static str {
    if unified() { "IOAccounting" } else { "BlockIOAccounting" }
}

#[test]
fn a_scope_is_started_around_the_first_process() {
    let ruled = Ruled::new(Mood::Well);
    ruled.create();
    let pid = ruled.pid();
    let calls = ruled.manager.calls();
    let (member, body) = &calls[0];
    assert_eq!((member.as_str(), body.len()), ("StartTransientUnit", 4));
    assert_eq!(
        (&body[0], &body[1], &body[3]),
        (&json!(ruled.unit()), &json!("replace"), &json!([]))
    );
    // Stock's is the parent of the one that stays.
    let around = if ours_only() { json!([pid]) } else { property(&body[2], "PIDs") };
    let wanted = sorted(&json!([
        ["Description", format!("libcontainer container {}", ruled.bundle.id)],
        ["Slice", ruled.slice],
        ["Delegate", true],
        ["PIDs", around],
        ["MemoryAccounting", true],
        ["CPUAccounting", true],
        [accounting(), true],
        ["TasksAccounting", true],
        ["DefaultDependencies", false],
    ]));
    assert_eq!(ruled.told().0, wanted);
    let members: Vec<&str> = calls.iter().map(|(member, _)| member.as_str()).collect();
    assert_eq!(members, ["StartTransientUnit", "SetUnitProperties"]);
    let inside = fs::read_to_string(ruled.group("pids").join("cgroup.procs")).unwrap();
    assert_eq!(inside, format!("{pid}\n"));

    ruled.ok(&["start", &ruled.bundle.id]);
    let text = ruled.ok(&["exec", &ruled.bundle.id, "cat", "/proc/self/cgroup"]);
    assert!(text.contains(&ruled.unit()), "{text}");
    ruled.ok(&["pause", &ruled.bundle.id]);
    ruled.ok(&["resume", &ruled.bundle.id]);
    ruled.manager.forget();
    ruled.ok(&["delete", "--force", &ruled.bundle.id]);
    let calls = ruled.manager.calls();
    let unit = json!(ruled.unit());
    assert_eq!(calls[0], ("StopUnit".to_owned(), vec![unit.clone(), json!("replace")]));
    assert_eq!(calls[1], ("ResetFailedUnit".to_owned(), vec![unit]));
    assert!(!ruled.group("pids").exists());
}

#[test]
fn without_a_path_it_is_a_scope_of_the_systems() {
    let mut ruled = Ruled::new(Mood::Well);
    ruled.bundle.linux().as_object_mut().unwrap().remove("cgroupsPath");
    let (start, _) = ruled.asked();
    let start = start.as_array().unwrap();
    assert!(start.contains(&json!(["Slice", "system.slice"])), "{start:?}");
    let name = format!("runc-{}.scope", ruled.bundle.id);
    assert_eq!(ruled.manager.calls()[0].1[0], json!(name));
    ruled.ok(&["delete", "--force", &ruled.bundle.id]);
    for mount in fs::read_dir("/sys/fs/cgroup").unwrap() {
        drop(fs::remove_dir(mount.unwrap().path().join("system.slice")));
    }
    drop(fs::remove_dir("/sys/fs/cgroup/system.slice"));
}

#[test]
fn where_there_is_no_bus_systemd_is_asked_itself() {
    let ruled = Ruled::new(Mood::Direct);
    ruled.create();
    ruled.ok(&["delete", "--force", &ruled.bundle.id]);
    let members: Vec<String> = ruled.manager.calls().into_iter().map(|(name, _)| name).collect();
    let wanted = ["StartTransientUnit", "SetUnitProperties", "StopUnit", "ResetFailedUnit"];
    assert_eq!(members, wanted);
}

#[test]
fn a_slice_is_wanted_by_the_one_above() {
    let mut ruled = Ruled::new(Mood::Well);
    let (slice, top) = (ruled.slice.clone(), ruled.slice.split('-').next().unwrap().to_owned());
    ruled.bundle.linux()["cgroupsPath"] = json!(format!("{top}.slice::{slice}"));
    let (start, _) = ruled.asked();
    assert_eq!(ruled.manager.calls()[0].1[0], json!(slice));
    assert_eq!(property(&start, "Wants"), json!([format!("{top}.slice")]));
    for name in ["Slice", "Delegate"] {
        assert_eq!(property(&start, name), Value::Null, "{name}");
    }
    if ours_only() {
        let state: Value = serde_json::from_str(&ruled.ok(&["state", &ruled.bundle.id])).unwrap();
        assert_eq!(state["status"], "created");
    }
}

#[test]
fn features_tells_of_the_driver() {
    let features: Value = serde_json::from_str(&Bundle::new("").ok(&["features"])).unwrap();
    let cgroup = &features["linux"]["cgroup"];
    assert_eq!((&cgroup["systemd"], &cgroup["systemdUser"]), (&json!(true), &json!(true)));
}

#[test]
fn crun_has_another_name_for_the_driver() {
    if !ours_only() {
        return;
    }
    let bundle = Bundle::new("true");
    let path = bundle.path().to_str().unwrap();
    let output = bundle.call(&["--cgroup-manager", "systemd", "create", "-b", path, &bundle.id]);
    let told = stderr(&output);
    // The tests' bundles have a path for the other driver, and the host perhaps no systemd.
    assert!(told.contains("slice:prefix:name") || told.contains("systemd not running"), "{told}");
}

#[test]
fn a_users_scope_is_made_by_the_users_own_manager() {
    let mut ruled = Ruled::of_user();
    if !unified() {
        let told = ruled.refused();
        let words = "cannot use rootless systemd cgroups manager on cgroup v1";
        assert!(told.contains(words), "{told}");
        return;
    }
    ruled.create();
    let pid = ruled.pid();
    let inside = fs::read_to_string(ruled.group("").join("cgroup.procs")).unwrap();
    assert_eq!(inside, format!("{pid}\n"));
    ruled.ok(&["delete", "--force", &ruled.bundle.id]);
    ruled.manager.forget();
    ruled.bundle.linux().as_object_mut().unwrap().remove("cgroupsPath");
    let (start, _) = ruled.asked();
    assert_eq!(property(&start, "Slice"), json!("user.slice"));
    ruled.ok(&["delete", "--force", &ruled.bundle.id]);
    let place = Path::new("/sys/fs/cgroup").join(&ruled.root).join("user.slice");
    assert!(place.exists());
    fs::remove_dir(place).unwrap();
}

#[test]
fn devices_become_properties() {
    let usual = [
        ["/dev/char/10:200", "rwm"],
        ["/dev/char/1:3", "rwm"],
        ["/dev/char/1:5", "rwm"],
        ["/dev/char/1:7", "rwm"],
        ["/dev/char/1:8", "rwm"],
        ["/dev/char/1:9", "rwm"],
        ["/dev/char/5:0", "rwm"],
        ["/dev/char/5:2", "rwm"],
        ["block-*", "m"],
        ["char-*", "m"],
        ["char-136", "rwm"],
    ];
    let deny = json!({"allow": false, "access": "rwm"});
    let exception = json!({"allow": false, "type": "b", "major": 8, "access": "w"});
    // Where we differ: on cgroup2 systemd, told to reload, takes all devices from runc's.
    let of_exceptions = if unified() && ours_only() { "auto" } else { "strict" };
    let rows = [
        (json!([deny]), Some(vec![]), "strict"),
        (
            json!([
                deny,
                {"allow": true, "type": "b", "major": 8, "access": "r"},
                {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"},
            ]),
            Some(vec![["block-8", "r"], ["/dev/char/10:229", "rw"]]),
            "strict",
        ),
        (json!([deny, {"allow": true, "access": "rwm"}]), None, "auto"),
        (json!([{"allow": true, "access": "rwm"}, exception]), None, of_exceptions),
    ];
    for (rules, more, policy) in rows {
        let mut ruled = Ruled::new(Mood::Well);
        ruled.bundle.linux()["resources"] = json!({"devices": rules});
        let (_, limits) = ruled.asked();
        let mut wanted = vec![json!(["DeviceAllow", []]), json!(["DevicePolicy", policy])];
        if let Some(more) = more {
            let mut all = [&usual[..], &more].concat();
            all.sort_unstable();
            wanted.push(json!(["DeviceAllow", all]));
        }
        // The rules of one property are a set too.
        let mut limits = limits;
        for property in limits.as_array_mut().unwrap() {
            if property[0] == "DeviceAllow" {
                property[1] = sorted(&property[1]);
            }
        }
        assert_eq!(sorted(&limits), sorted(&json!(wanted)), "{rules}");
    }
}

/// What is asked for besides the devices.
fn limits_of(resources: &Value) -> Value {
    let mut ruled = Ruled::new(Mood::Well);
    ruled.bundle.linux()["resources"] = resources.clone();
    let (_, limits) = ruled.asked();
    let is_device = |property: &&Value| property[0].as_str().unwrap().starts_with("Device");
    let others = limits.as_array().unwrap().iter().filter(|property| !is_device(property));
    json!(others.collect::<Vec<_>>())
}

#[test]
fn limits_become_properties() {
    if unified() {
        return; // see the next one
    }
    let all = u64::MAX;
    let rows = [
        (json!({"memory": {"limit": 100_000_000}}), json!([["MemoryLimit", 100_000_000]])),
        (json!({"cpu": {"shares": 512}}), json!([["CPUShares", 512]])),
        (
            json!({"cpu": {"quota": 25_001, "period": 100_000}}),
            json!([["CPUQuotaPerSecUSec", 260_000], ["CPUQuotaPeriodUSec", 100_000]]),
        ),
        (json!({"cpu": {"quota": 50_000}}), json!([["CPUQuotaPerSecUSec", 500_000]])),
        (
            json!({"cpu": {"quota": -1, "period": 50_000}}),
            json!([["CPUQuotaPerSecUSec", all], ["CPUQuotaPeriodUSec", 50_000]]),
        ),
        (
            json!({"cpu": {"cpus": "0-1", "mems": "0"}}),
            json!([["AllowedCPUs", [3]], ["AllowedMemoryNodes", [1]]]),
        ),
        (json!({"pids": {"limit": 20}}), json!([["TasksMax", 20]])),
        (json!({"pids": {"limit": -1}}), json!([["TasksMax", all]])),
    ];
    for (resources, wanted) in rows {
        assert_eq!(limits_of(&resources), wanted, "{resources}");
    }
}

#[test]
fn what_the_older_hierarchies_and_cgroup2_share_is_asked_for_on_both() {
    // One that needs no controller of the host.
    if !unified() {
        assert_eq!(limits_of(&json!({})), json!([]));
        return;
    }
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap();
    let all = u64::MAX;
    let rows = [
        (
            "memory",
            json!({"memory": {"limit": 100_000_000, "reservation": 50_000_000, "swap": 150_000_000}}),
            json!([
                ["MemoryLow", 50_000_000],
                ["MemoryMax", 100_000_000],
                ["MemorySwapMax", 50_000_000]
            ]),
        ),
        (
            "cpu",
            json!({"cpu": {"quota": 25_001, "period": 100_000}}),
            json!([["CPUQuotaPerSecUSec", 260_000], ["CPUQuotaPeriodUSec", 100_000]]),
        ),
        ("cpu", json!({"cpu": {"idle": 1}}), json!([["CPUWeight", 0]])),
        (
            "cpuset",
            json!({"cpu": {"cpus": "0", "mems": "0"}}),
            json!([["AllowedCPUs", [1]], ["AllowedMemoryNodes", [1]]]),
        ),
        ("pids", json!({"pids": {"limit": 0}}), json!([["TasksMax", 1]])),
        ("pids", json!({"pids": {"limit": -1}}), json!([["TasksMax", all]])),
        (
            "memory",
            json!({"unified": {"memory.high": "90000000", "memory.min": "4096"}}),
            json!([["MemoryHigh", 90_000_000], ["MemoryMin", 4096]]),
        ),
    ];
    for (controller, resources, wanted) in rows {
        if controllers.split_whitespace().any(|known| known == controller) {
            assert_eq!(limits_of(&resources), wanted, "{resources}");
        }
    }
}

#[test]
fn annotations_are_properties_of_the_unit() {
    let mut ruled = Ruled::new(Mood::Well);
    ruled.bundle.config["annotations"] = json!({
        "org.systemd.property.TimeoutStopSec": "2",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.MemoryMin": "uint64 4096",
        "org.systemd.property.IgnoreOnIsolate": "true",
        "org.systemd.property.After": "['a.service', \"b.service\"]",
        "other": "'x'",
    });
    let (start, _) = ruled.asked();
    for wanted in [
        json!(["TimeoutStopUSec", 2_000_000]),
        json!(["CollectMode", "inactive-or-failed"]),
        json!(["MemoryMin", 4096]),
        json!(["IgnoreOnIsolate", true]),
        json!(["After", ["a.service", "b.service"]]),
    ] {
        assert!(start.as_array().unwrap().contains(&wanted), "{wanted} in {start}");
    }
    assert_eq!(start.as_array().unwrap().len(), 9 + 5);
    for (name, value, words) in [
        ("x", "1", "annotation org.systemd.property.x name incorrect: too short"),
        (
            "a_bc",
            "1",
            "annotation org.systemd.property.a_bc name incorrect: contains non-alphabetic character",
        ),
        (
            "StopSec",
            "'x'",
            "annotation org.systemd.property.StopSec='x' value parse error: not a number",
        ),
        ("Other", "[1", "annotation org.systemd.property.Other=[1 value parse error: "),
    ] {
        let mut ruled = Ruled::new(Mood::Well);
        ruled.bundle.config["annotations"] =
            json!({ format!("org.systemd.property.{name}"): value });
        let told = ruled.refused();
        assert!(told.contains(words), "{words}: {told}");
        assert_eq!(ruled.manager.calls(), []);
    }
}

#[test]
fn update_asks_systemd_and_writes_the_files() {
    if unified() {
        return; // the controllers are not everyone's
    }
    let ruled = Ruled::new(Mood::Well);
    ruled.create();
    ruled.manager.forget();
    ruled.ok(&[
        "update",
        "--pids-limit",
        "20",
        "--cpu-quota",
        "25001",
        "--cpu-period",
        "100000",
        &ruled.bundle.id,
    ]);
    let calls = ruled.manager.calls();
    let (member, body) = &calls[0];
    assert_eq!(
        (member.as_str(), &body[0], &body[1]),
        ("SetUnitProperties", &json!(ruled.unit()), &json!(true))
    );
    for wanted in [
        json!(["TasksMax", 20]),
        json!(["CPUQuotaPerSecUSec", 260_000]),
        json!(["CPUQuotaPeriodUSec", 100_000]),
    ] {
        assert!(body[2].as_array().unwrap().contains(&wanted), "{wanted} in {}", body[2]);
    }
    let file = |controller: &str, name: &str| {
        fs::read_to_string(ruled.group(controller).join(name)).unwrap()
    };
    assert_eq!(file("pids", "pids.max"), "20\n");
    // As systemd counts, or it would set it again.
    assert_eq!(file("cpu", "cpu.cfs_quota_us"), "26000\n");
    assert_eq!(file("freezer", "freezer.state"), "THAWED\n");
}

#[test]
fn a_failed_unit_of_the_same_name_is_reset() {
    let ruled = Ruled::new(Mood::Exists);
    ruled.create();
    let members: Vec<String> =
        ruled.manager.calls().into_iter().map(|(member, _)| member).collect();
    let wanted =
        ["StartTransientUnit", "ResetFailedUnit", "StartTransientUnit", "SetUnitProperties"];
    assert_eq!(members, wanted);
}

#[test]
fn what_systemd_will_not_do_is_told_and_nothing_is_left() {
    let failed = Ruled::new(Mood::JobsEnd("failed"));
    let words = format!("error creating systemd unit `{}`: got `failed`", failed.unit());
    let told = failed.refused();
    assert!(told.contains(&words), "{told}");
    let told = Ruled::new(Mood::Refuses).refused();
    assert!(told.contains("no such property"), "{told}");
    assert!(told.contains("unable to apply cgroup configuration: "), "{told}");
}

#[test]
fn a_path_that_names_no_unit_is_refused() {
    for (path, words) in [
        (
            "/a/b",
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"/a/b\" instead",
        ),
        (
            "a:b",
            "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got \"a:b\" instead",
        ),
        ("a--b.slice:x:y", "invalid slice name: a--b.slice"),
        ("a:x:y", "invalid slice name: a"),
        ("a/b.slice:x:y", "invalid slice name: a/b.slice"),
    ] {
        let mut ruled = Ruled::new(Mood::Well);
        ruled.bundle.linux()["cgroupsPath"] = json!(path);
        let told = ruled.refused();
        assert!(told.contains(words), "{words}: {told}");
        assert_eq!(ruled.manager.calls(), [], "{path}");
    }
}

#[test]
fn a_host_without_systemd_has_no_such_driver() {
    if Path::new("/run/systemd/system").exists() {
        return; // it has
    }
    let mut bundle = Bundle::new("true");
    bundle.linux()["cgroupsPath"] = json!(format!("a.slice:b:{}", bundle.id));
    let path = bundle.path().to_str().unwrap();
    let output = bundle.call(&["--systemd-cgroup", "create", "-b", path, &bundle.id]);
    let words = "systemd not running on this host, cannot use systemd cgroups manager";
    assert!(stderr(&output).contains(words), "{}", stderr(&output));
    assert!(!bundle.root().join(&bundle.id).exists());
}

#[test]
fn a_bus_that_is_none_ends_in_words_with_nothing_left() {
    if !ours_only() {
        return; // stock waits for answers for ever
    }
    const LONG: &[u8] = b"l\x02\0\x01\xff\xff\xff\x7f\x01\0\0\0\0\0\0\0";
    let rows = [
        (Mood::Rejects, "dbus: authentication failed: \"REJECTED EXTERNAL\""),
        (Mood::Says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "dbus: no D-Bus message"),
        (Mood::Says(LONG), "dbus: a message of 2147483663 bytes"),
        (Mood::Hangs("Hello"), "dbus: connection closed by the other side"),
        (Mood::Hangs("StartTransientUnit"), "dbus: connection closed by the other side"),
        (Mood::Hangs("SetUnitProperties"), "dbus: connection closed by the other side"),
    ];
    for (mood, words) in rows {
        let told = Ruled::new(mood).refused();
        assert!(told.contains(words), "{mood:?}: {told}");
        assert_eq!(told.lines().count(), 1, "{mood:?}: {told}");
    }
    let ruled = Ruled::new(Mood::Well);
    fs::remove_file(ruled.bundle.path().join("bus")).unwrap();
    let told = ruled.refused();
    assert!(told.contains("failed to connect to dbus (hint: "), "{told}");
    assert!(told.contains("connect: no such file or directory"), "{told}");
}
