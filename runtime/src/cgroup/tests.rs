//! On directories that play a cgroup file system, and on this host's own with a prefix of ours.

use std::process::{Child, Command, Stdio};

use super::*;

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// A directory with empty files.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, value) in files {
        fs::write(directory.path().join(name), value).unwrap();
    }
    directory
}

fn group(controllers: &[&str], directory: &Path) -> Cgroup {
    let path = |name: &&str| ((*name).to_owned(), directory.to_owned());
    Cgroup::load(controllers.iter().map(path).collect())
}

#[test]
fn v1_limits_are_written_to_their_files() {
    let files = [
        "memory.limit_in_bytes",
        "memory.memsw.limit_in_bytes",
        "memory.soft_limit_in_bytes",
        "memory.swappiness",
        "memory.oom_control",
        "cpu.shares",
        "cpu.cfs_period_us",
        "cpu.cfs_quota_us",
        "cpuset.cpus",
        "cpuset.mems",
        "pids.max",
        "blkio.weight",
        "blkio.throttle.read_bps_device",
    ];
    let fake = directory(&files.map(|name| (name, "0")));
    let cgroup = group(&["memory", "cpu", "cpuset", "pids", "blkio", "devices"], fake.path());
    cgroup
        .update(&resources(
            r#"{"memory":{"limit":1048576,"swap":2097152,"reservation":524288,"swappiness":10,
                "disableOOMKiller":true},
               "cpu":{"shares":512,"period":50000,"quota":25000,"cpus":"0","mems":"0"},
               "pids":{"limit":100},
               "blockIO":{"weight":300,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":9}]}}"#,
        ))
        .unwrap();
    let value = |name: &str| file::read(fake.path(), name).unwrap();
    let values = files.map(value);
    assert_eq!(
        values,
        [
            "1048576", "2097152", "524288", "10", "1", "512", "50000", "25000", "0", "0", "100",
            "300", "8:0 9"
        ]
    );
}

#[test]
fn v2_limits_are_converted() {
    let files = [
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "cpu.weight",
        "cpu.max",
        "cpu.max.burst",
        "cpu.idle",
        "cpuset.cpus",
        "pids.max",
        "io.weight",
        "io.max",
        "hugetlb.2MB.max",
        "memory.high",
    ];
    let fake = directory(&files.map(|name| (name, "")));
    group(&[""], fake.path())
        .update(&resources(
            r#"{"memory":{"limit":1048576,"swap":2097152,"reservation":524288},
               "cpu":{"shares":1024,"quota":25000,"burst":1000,"idle":1,"cpus":"0-1"},
               "pids":{"limit":-1},
               "blockIO":{"weight":500,"throttleWriteIOPSDevice":[{"major":8,"minor":0,"rate":9}]},
               "hugepageLimits":[{"pageSize":"2MB","limit":4194304}],
               "unified":{"memory.high":"900000"}}"#,
        ))
        .unwrap();
    let value = |name: &str| file::read(fake.path(), name).unwrap();
    assert_eq!(
        files.map(value),
        [
            "1048576",
            "1048576",
            "524288",
            "39",
            "25000",
            "1000",
            "1",
            "0-1",
            "max",
            "4950",
            "8:0 wiops=9",
            "4194304",
            "900000"
        ]
    );
}

#[test]
fn shares_become_weights_as_in_runc() {
    let weights = [0, 2, 1024, 262_144, u64::MAX].map(v2::weight_of_shares);
    assert_eq!(weights, [1, 1, 39, 10_000, 10_000]);
    assert_eq!([10, 100, 1000].map(v2::io_weight), [1, 910, 10_000]);
}

#[test]
fn swap_of_v2_is_the_difference() {
    assert_eq!(v2::swap_only(Some(10), Some(30)).unwrap(), Some(20));
    assert_eq!(v2::swap_only(Some(10), Some(-1)).unwrap(), Some(-1));
    assert_eq!(v2::swap_only(Some(-1), None).unwrap(), Some(-1));
    assert_eq!(v2::swap_only(Some(10), None).unwrap(), None);
    assert!(matches!(v2::swap_only(None, Some(5)), Err(Error::SwapWithoutMemory)));
    assert!(matches!(v2::swap_only(Some(10), Some(5)), Err(Error::SwapBelowMemory { .. })));
}

#[test]
fn a_limit_without_its_controller_says_so() {
    let fake = directory(&[("cgroup.controllers", "cpu pids")]);
    let memory = resources(r#"{"memory":{"limit":1048576}}"#);
    let error = group(&[""], fake.path()).update(&memory).unwrap_err();
    assert_eq!(error.to_string(), "cannot set memory.max: controller memory is not available here");
    let error = group(&["cpu", "pids"], fake.path()).update(&memory).unwrap_err();
    assert_eq!(error.to_string(), "cannot set memory limit: the controller is not mounted");
    let unified = resources(r#"{"unified":{"../memory.max":"1"}}"#);
    let error = group(&[""], fake.path()).update(&unified).unwrap_err();
    assert_eq!(
        error.to_string(),
        "unified resource \"../memory.max\" must be a file name (no slashes)"
    );
}

#[test]
fn v2_hands_every_controller_down() {
    let fake =
        directory(&[("cgroup.controllers", "cpu memory pids\n"), ("cgroup.subtree_control", "")]);
    let inner = fake.path().join("c1");
    group(&[""], &inner).create_below(Some(fake.path())).unwrap();
    assert!(inner.is_dir());
    assert_eq!(file::read(fake.path(), "cgroup.subtree_control").unwrap(), "+cpu +memory +pids");
    group(&[""], &inner).destroy().unwrap();
    assert!(!inner.exists());
}

#[test]
fn mounts_describe_each_hierarchy_once() {
    let layout = Layout::parse(
        "26 25 0:21 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
         28 25 0:23 / /cg/systemd rw - cgroup cgroup rw,xattr,name=systemd\n",
        "",
    );
    let cgroup = Cgroup::planned(layout.clone(), Some("/docker/c1"), "c1").unwrap();
    let CgroupMount::V1 { binds, links, fresh, unified } = cgroup.mounts_of(&layout).unwrap()
    else {
        panic!("v1");
    };
    let bind = |path: &str, name: &str| (PathBuf::from(path), name.to_owned());
    assert_eq!(
        binds,
        [
            bind("/cg/cpu,cpuacct/docker/c1", "cpu,cpuacct"),
            bind("/cg/systemd/docker/c1", "systemd")
        ]
    );
    let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    assert_eq!(links, [pair("cpu", "cpu,cpuacct"), pair("cpuacct", "cpu,cpuacct")]);
    assert_eq!(fresh, [pair("cpu,cpuacct", "cpu,cpuacct"), pair("none,name=systemd", "systemd")]);
    assert!(unified.is_none());
}

fn plan(path: &str) -> Result<Cgroup, Error> {
    let (resources, annotations) = (LinuxResources::default(), BTreeMap::new());
    let path = Some(path);
    let wish =
        Wish { path, id: "c", resources: &resources, annotations: &annotations, user: false };
    Cgroup::plan(wish, Driver::Cgroupfs)
}

#[test]
fn empty_paths_are_refused() {
    assert!(matches!(plan("/.."), Err(Error::EmptyPath(_))));
}

/// A group of this host, removed whatever happens.
struct Real(Cgroup, Vec<Child>);

impl Real {
    fn new(name: &str) -> Self {
        let path = format!("/runc-rs-test-{}-{name}", std::process::id());
        let mut cgroup = plan(&path).unwrap();
        cgroup.create().unwrap();
        Self(cgroup, Vec::new())
    }

    fn sleeper(&mut self) -> i32 {
        let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        self.1.push(child);
        self.0.clone().join(pid).unwrap();
        pid
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        for child in &mut self.1 {
            child.kill().unwrap_or_default();
            child.wait().map(drop).unwrap_or_default();
        }
        self.0.destroy().unwrap();
        assert!(self.0.paths().values().all(|path| !path.exists()));
    }
}

/// These need root and writable hierarchies: elsewhere `make check` still has to pass.
fn real(name: &str) -> Option<Real> {
    rustix::process::geteuid().is_root().then(|| Real::new(name))
}

#[test]
fn a_real_group_takes_processes_and_limits() {
    let Some(mut real) = real("limits") else { return };
    let pid = real.sleeper();
    assert_eq!(real.0.pids(true).unwrap(), [pid]);
    let limits = resources(
        r#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":67108864},
           "pids":{"limit":50},"cpu":{"shares":512,"quota":50000,"period":100000}}"#,
    );
    if real.0.paths().contains_key("memory") {
        real.0.apply(&limits).unwrap();
        let value = |controller: &str, name| file::read(&real.0.paths()[controller], name).unwrap();
        assert_eq!(value("memory", "memory.limit_in_bytes"), "67108864");
        assert_eq!(value("pids", "pids.max"), "50");
        assert_eq!(value("cpu", "cpu.cfs_quota_us"), "50000");
        assert!(value("devices", "devices.list").contains("c 1:3 rwm"));
        assert!(!value("devices", "devices.list").contains("a *:* rwm"));
    }
}

#[test]
fn a_real_group_freezes_and_thaws() {
    let Some(mut real) = real("freeze") else { return };
    real.sleeper();
    assert!(!real.0.is_frozen().unwrap());
    real.0.freeze(true).unwrap();
    assert!(real.0.is_frozen().unwrap());
    real.0.freeze(false).unwrap();
    assert!(!real.0.is_frozen().unwrap());
}

#[test]
fn kill_all_leaves_nobody() {
    let Some(mut real) = real("kill") else { return };
    for _ in 0..5 {
        real.sleeper();
    }
    real.0.kill_all(libc::SIGKILL).unwrap();
    for child in &mut real.1 {
        child.wait().unwrap();
    }
    assert!(real.0.pids(true).unwrap().is_empty());
}

#[test]
fn kill_all_without_cgroup_kill_freezes_first() {
    let Some(mut real) = real("kill1") else { return };
    let mut paths = real.0.paths().clone();
    paths.remove("");
    if paths.is_empty() {
        return;
    }
    for _ in 0..5 {
        real.sleeper();
    }
    let without = Cgroup::load(paths);
    let mut children = std::mem::take(&mut real.1);
    // The reaper that the processes' parent would be.
    let reaper = std::thread::spawn(move || {
        children.iter_mut().for_each(|child| child.wait().map(drop).unwrap());
    });
    without.kill_all(libc::SIGKILL).unwrap();
    reaper.join().unwrap();
    assert!(without.pids(true).unwrap().is_empty());
    assert!(!without.is_frozen().unwrap());
}

#[test]
fn the_kernel_accepts_the_device_program() {
    let Some(real) = real("bpf") else { return };
    let Some(unified) = real.0.paths().get("") else { return };
    let rules = resources(
        r#"{"devices":[{"allow":false,"access":"rwm"},
            {"allow":true,"type":"b","major":8,"access":"r"}]}"#,
    );
    let policy = DevicePolicy::new(&rules.devices).unwrap();
    // Twice: the second replaces the first.
    for _ in 0..2 {
        v2::apply_devices(unified, &policy).unwrap();
        let group = fs::File::open(unified).unwrap();
        use std::os::fd::AsFd as _;
        assert_eq!(sys::attached(group.as_fd()).unwrap().len(), 1);
    }
}

#[test]
fn a_process_enters_each_v1_hierarchy_once_and_by_itself() {
    let (first, second) = (directory(&[("tasks", "")]), directory(&[("tasks", "")]));
    let paths = [("cpu", &first), ("cpuacct", &first), ("memory", &second)];
    let path =
        |(name, place): (&str, &tempfile::TempDir)| (name.to_owned(), place.path().to_owned());
    let doors = Cgroup::load(paths.into_iter().map(path).collect()).doors().unwrap();
    assert!(doors.birthplace().is_none());
    assert!(doors.enter());
    for place in [&first, &second] {
        assert_eq!(fs::read_to_string(place.path().join("tasks")).unwrap(), "0");
    }
}

#[test]
fn a_hierarchy_that_opens_no_door_leaves_the_way_to_the_runtime() {
    let (whole, bare) = (directory(&[("tasks", "")]), directory(&[]));
    let mut cgroup = group(&["cpu"], whole.path());
    cgroup.paths.insert("memory".to_owned(), bare.path().to_owned());
    assert!(cgroup.doors().is_none());
}
