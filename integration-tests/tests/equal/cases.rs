//! What is asked for, case by case: the body of a create request without image and command.
//!
//! `ROOT` in a body stands for the stack's directory, where `fixtures` has laid out what is bound.

use serde_json::{Value, json};

use crate::probe::SCRIPT;

/// One container that is compared.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// What the request has beside image and command.
    pub(crate) body: Value,
    /// A container `first` that is there before, with this in its request.
    pub(crate) first: Option<Value>,
    /// What not every host can; there the golden file cannot judge.
    pub(crate) needs: Option<Need>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Need {
    /// A file of a controller, below `/sys/fs/cgroup`.
    File(&'static str),
    /// Root that lacks no capability: stock gives all that it knows of or fails.
    AllCapabilities,
    /// A kernel that knows no profiles.
    NoAppArmor,
}

impl Case {
    fn with_first(mut self, body: Value) -> Self {
        self.first = Some(body);
        self
    }

    fn needs(mut self, file: &'static str) -> Self {
        self.needs = Some(Need::File(file));
        self
    }

    fn without_apparmor(mut self) -> Self {
        self.needs = Some(Need::NoAppArmor);
        self
    }

    /// Whether golden files have it: not what the host of the recording could not.
    pub(crate) fn is_recorded(&self) -> bool {
        !matches!(self.needs, Some(Need::AllCapabilities | Need::File("blkio/blkio.weight")))
    }

    fn needs_all_capabilities(mut self) -> Self {
        self.needs = Some(Need::AllCapabilities);
        self
    }

    /// The whole request. A case with an entry point leaves the shell's arguments to the command.
    pub(crate) fn request(&self, root: &str) -> Value {
        let mut body = self.body.clone();
        body["Image"] = json!("busybox");
        body["Cmd"] = if body["Entrypoint"].is_null() {
            json!(["sh", "-c", SCRIPT])
        } else {
            json!(["-c", SCRIPT])
        };
        let text = body.to_string().replace("ROOT", root);
        serde_json::from_str(&text).expect("JSON stays JSON")
    }
}

fn case(name: &'static str, body: Value) -> Case {
    Case { name, body, first: None, needs: None }
}

fn host(name: &'static str, host: Value) -> Case {
    case(name, json!({"HostConfig": host}))
}

fn security(name: &'static str, options: Value) -> Case {
    host(name, json!({"SecurityOpt": options}))
}

/// The containers of a group; each group is a test, a golden file and some seconds.
pub(crate) fn group(name: &str) -> Vec<Case> {
    match name {
        "default" => process().into_iter().take(1).collect(),
        "process" => process(),
        "settings" => settings(),
        "capabilities" => capabilities(),
        "security" => security_options(),
        "namespaces" => namespaces(),
        "ipc" => ipc(),
        "names" => names(),
        "mounts" => mounts(),
        "binds" => binds(),
        "described" => described(),
        "volumes" => volumes(),
        "devices" => devices(),
        "memory" => memory(),
        "processors" => processors(),
        "resolving" => resolving(),
        "ports" => ports(),
        other => panic!("no group {other}"),
    }
}

fn process() -> Vec<Case> {
    vec![
        case("default", json!({})),
        case("terminal", json!({"Tty": true})),
        case("stdin", json!({"OpenStdin": true, "StdinOnce": true, "AttachStdin": true})),
        case("terminal and stdin", json!({"Tty": true, "OpenStdin": true})),
        case("user by number", json!({"User": "1234"})),
        case("user and group by number", json!({"User": "1234:5678"})),
        case("user by name", json!({"User": "daemon"})),
        case("user and group by name", json!({"User": "daemon:nogroup"})),
        case(
            "further groups",
            json!({"User": "nobody", "HostConfig": {"GroupAdd": ["daemon", "4242"]}}),
        ),
        case("new working directory", json!({"WorkingDir": "/work/deep/er"})),
        case(
            "environment",
            json!({"Env": ["A=1", "B=", "PATH=/bin:/sbin", "HOSTNAME=mine", "A=2", "TERM=dumb"]}),
        ),
        case("environment on a terminal", json!({"Tty": true, "Env": ["TERM=vt100", "HOME=/tmp"]})),
    ]
}

fn settings() -> Vec<Case> {
    vec![
        case("entry point", json!({"Entrypoint": ["/bin/sh"]})),
        case("labels", json!({"Labels": {"org.example.a": "1", "b": ""}})),
        case("stop signal and timeout", json!({"StopSignal": "SIGUSR1", "StopTimeout": 3})),
        host("restart always", json!({"RestartPolicy": {"Name": "always"}})),
        host(
            "restart on failure",
            json!({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}),
        ),
        host("removed at its end", json!({"AutoRemove": true})),
        host("oom score", json!({"OomScoreAdj": 321})),
        host(
            "ulimits",
            json!({"Ulimits": [{"Name": "nofile", "Soft": 1000, "Hard": 2000},
                {"Name": "core", "Soft": 0, "Hard": 0}, {"Name": "stack", "Soft": 4_194_304, "Hard": 4_194_304}]}),
        ),
        host(
            "log options",
            json!({"LogConfig": {"Type": "json-file", "Config": {"max-size": "1m", "max-file": "2"}}}),
        ),
    ]
}

fn capabilities() -> Vec<Case> {
    vec![
        host("privileged", json!({"Privileged": true})).needs_all_capabilities(),
        case("privileged user", json!({"User": "daemon", "HostConfig": {"Privileged": true}})),
        host(
            "privileged with a device",
            json!({"Privileged": true, "CapDrop": ["NET_RAW"],
                "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/nothing", "CgroupPermissions": "r"}]}),
        )
        .needs_all_capabilities(),
        host("one capability more", json!({"CapAdd": ["NET_ADMIN"]})),
        host("all capabilities", json!({"CapAdd": ["ALL"]})).needs_all_capabilities(),
        host("all but some", json!({"CapAdd": ["ALL"], "CapDrop": ["SYS_ADMIN", "SYS_RESOURCE"]})),
        host("two capabilities less", json!({"CapDrop": ["chown", "CAP_MKNOD"]})),
        host("no capabilities", json!({"CapDrop": ["ALL"]})),
        host("only one", json!({"CapDrop": ["ALL"], "CapAdd": ["SYS_TIME"]})),
        case(
            "capabilities of a user",
            json!({"User": "daemon", "HostConfig": {"CapAdd": ["SYS_PTRACE"]}}),
        ),
    ]
}

fn security_options() -> Vec<Case> {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]});
    vec![
        security("no new privileges", json!(["no-new-privileges"])),
        security("no seccomp", json!(["seccomp=unconfined"])),
        security("own seccomp", json!([format!("seccomp={profile}")])),
        security("no apparmor", json!(["apparmor=unconfined"])),
        security("apparmor profile", json!(["apparmor=nobody-has-it"])).without_apparmor(),
        security("no label", json!(["label=disable"])),
        // What the CLI makes of systempaths=unconfined.
        host("open system paths", json!({"MaskedPaths": [], "ReadonlyPaths": []})),
        host(
            "own masked paths",
            json!({"MaskedPaths": ["/proc/cpuinfo", "/proc/nope"], "ReadonlyPaths": ["/proc/sys/kernel"]}),
        ),
        host("host's users", json!({"UsernsMode": "host"})),
    ]
}

fn namespaces() -> Vec<Case> {
    vec![
        host("host's network", json!({"NetworkMode": "host"})),
        host("no network", json!({"NetworkMode": "none"})),
        host("network of another", json!({"NetworkMode": "container:first"}))
            .with_first(json!({"Hostname": "one", "Domainname": "test"})),
        host("host's processes", json!({"PidMode": "host"})),
        host("processes of another", json!({"PidMode": "container:first"})).with_first(json!({})),
    ]
}

fn ipc() -> Vec<Case> {
    vec![
        host("host's ipc", json!({"IpcMode": "host"})),
        host("private ipc", json!({"IpcMode": "private"})),
        host("shareable ipc", json!({"IpcMode": "shareable"})),
        host("no ipc", json!({"IpcMode": "none"})),
        host("ipc of another", json!({"IpcMode": "container:first"}))
            .with_first(json!({"HostConfig": {"IpcMode": "shareable"}})),
    ]
}

fn names() -> Vec<Case> {
    vec![
        host("host's names", json!({"UTSMode": "host"})),
        host("own cgroups", json!({"CgroupnsMode": "private"})),
        host("host's cgroups", json!({"CgroupnsMode": "host"})),
        host("cgroup parent", json!({"CgroupParent": "/docker/docker"})),
        case("host name", json!({"Hostname": "somebody"})),
        case("domain name", json!({"Hostname": "somebody", "Domainname": "example.org"})),
        case("long host name", json!({"Hostname": "somebody.example.org"})),
        host(
            "sysctls",
            json!({"Sysctls": {"net.core.somaxconn": "1234", "kernel.msgmax": "9000",
            "net.ipv4.ip_forward": "0", "kernel.shm_rmid_forced": "1", "fs.mqueue.msg_max": "33",
            "net.ipv4.ip_unprivileged_port_start": "1024"}}),
        ),
    ]
}

fn mounts() -> Vec<Case> {
    vec![
        host("read-only root", json!({"ReadonlyRootfs": true})),
        host("tmpfs", json!({"Tmpfs": {"/scratch": ""}})),
        host(
            "tmpfs with options",
            json!({"Tmpfs": {"/scratch": "rw,exec,suid,dev,size=1m,mode=1770,uid=5"}}),
        ),
        host(
            "tmpfs over what is there",
            json!({"Tmpfs": {"/var": "ro", "/run": "noexec,size=64k"}}),
        ),
        host("read-only root and tmpfs", json!({"ReadonlyRootfs": true, "Tmpfs": {"/tmp": ""}})),
        host("size of shm", json!({"ShmSize": 134_217_728})),
        host("tmpfs over shm", json!({"Tmpfs": {"/dev/shm": "size=2m"}})),
    ]
}

fn binds() -> Vec<Case> {
    vec![
        host("bind", json!({"Binds": ["ROOT/source:/bound"]})),
        host("bind read-only", json!({"Binds": ["ROOT/source:/bound:ro"]})),
        host("bind of a file", json!({"Binds": ["ROOT/source/file:/etc/bound"]})),
        host(
            "bind over a file of the engine",
            json!({"Binds": ["ROOT/source/file:/etc/hosts:ro"]}),
        ),
        host("bind made on the way", json!({"Binds": ["ROOT/made/here:/bound"]})),
        host("bind with a mount below", json!({"Binds": ["ROOT/peers:/bound"]})),
        host("bind with a mount below read-only", json!({"Binds": ["ROOT/peers:/bound:ro"]})),
        host("bind rshared", json!({"Binds": ["ROOT/peers:/bound:rshared"]})),
        host("bind rslave", json!({"Binds": ["ROOT/peers:/bound:rslave"]})),
        host("bind slave read-only", json!({"Binds": ["ROOT/peers:/bound:ro,slave"]})),
    ]
}

fn described() -> Vec<Case> {
    vec![
        host(
            "mount of a directory",
            json!({"Mounts": [{"Type": "bind", "Source": "ROOT/source", "Target": "/bound", "ReadOnly": true}]}),
        ),
        host(
            "mount of a directory alone",
            json!({"Mounts": [{"Type": "bind", "Source": "ROOT/peers", "Target": "/bound",
                "BindOptions": {"NonRecursive": true, "Propagation": "rprivate"}}]}),
        ),
        host(
            "mount of a tmpfs",
            json!({"Mounts": [{"Type": "tmpfs", "Target": "/scratch",
                "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 0o1777}}]}),
        ),
        host(
            "mount of a read-only tmpfs",
            json!({"Mounts": [{"Type": "tmpfs", "Target": "/scratch", "ReadOnly": true}]}),
        ),
    ]
}

fn volumes() -> Vec<Case> {
    vec![
        host("named volume", json!({"Binds": ["data:/data"]})),
        host("named volume read-only", json!({"Binds": ["data:/data:ro"]})),
        host("volume over what is there", json!({"Binds": ["data:/var"]})),
        host("volume without a copy", json!({"Binds": ["data:/var:nocopy"]})),
        case("anonymous volume", json!({"Volumes": {"/data": {}}})),
        host(
            "mount of a volume",
            json!({"Mounts": [{"Type": "volume", "Source": "data", "Target": "/data", "ReadOnly": true,
                "VolumeOptions": {"NoCopy": true, "Labels": {"a": "b"}}}]}),
        ),
        host(
            "mount of an anonymous volume",
            json!({"Mounts": [{"Type": "volume", "Target": "/data"}]}),
        ),
        host("volumes of another", json!({"VolumesFrom": ["first:ro"]})).with_first(
            json!({"Volumes": {"/data": {}}, "HostConfig": {"Binds": ["ROOT/source:/bound"]}}),
        ),
        host(
            "volumes within one another",
            json!({"Binds": ["data:/a/b", "ROOT/source:/a"], "Tmpfs": {"/a/b/c": ""}}),
        ),
    ]
}

fn devices() -> Vec<Case> {
    let device = |inside: &str, access: &str| {
        json!({"Devices": [{"PathOnHost": "/dev/zero",
        "PathInContainer": inside, "CgroupPermissions": access}]})
    };
    vec![
        host("device", device("/dev/zero", "rwm")),
        host("device by another name", device("/dev/deep/nought", "r")),
        host(
            "device of the host",
            json!({"Devices": [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "r"}]}),
        ),
        case(
            "device for a user",
            json!({"User": "1234", "HostConfig": {"Devices": [{"PathOnHost": "/dev/full",
                "PathInContainer": "/dev/full2", "CgroupPermissions": "mr"}]}}),
        ),
        host("device rule", json!({"DeviceCgroupRules": ["c 10:229 rw", "b 7:* rmw"]})),
        host("device rule for all", json!({"DeviceCgroupRules": ["c *:* r"]})),
        host("device rule of any kind", json!({"DeviceCgroupRules": ["a *:* rwm"]})),
    ]
}

fn memory() -> Vec<Case> {
    const SWAP: &str = "memory/memory.memsw.limit_in_bytes";
    vec![
        host("memory", json!({"Memory": 67_108_864})).needs(SWAP),
        host("memory and swap", json!({"Memory": 67_108_864, "MemorySwap": 100_663_296}))
            .needs(SWAP),
        host("memory without swap", json!({"Memory": 67_108_864, "MemorySwap": 67_108_864}))
            .needs(SWAP),
        host("memory with any swap", json!({"Memory": 67_108_864, "MemorySwap": -1})).needs(SWAP),
        host("memory reservation", json!({"MemoryReservation": 33_554_432})),
        host(
            "memory and its reservation",
            json!({"Memory": 67_108_864, "MemoryReservation": 33_554_432}),
        )
        .needs(SWAP),
        host("swappiness", json!({"MemorySwappiness": 7})).needs("memory/memory.swappiness"),
        host("no oom killer", json!({"Memory": 67_108_864, "OomKillDisable": true}))
            .needs("memory/memory.oom_control"),
        host("pids", json!({"PidsLimit": 50})),
        host("any number of pids", json!({"PidsLimit": -1})),
        host("memory of tcp", json!({"KernelMemoryTCP": 16_777_216}))
            .needs("memory/memory.kmem.tcp.limit_in_bytes"),
    ]
}

fn processors() -> Vec<Case> {
    let rate = |key: &str, rate: u64| json!({key: [{"Path": "ROOT/block", "Rate": rate}]});
    vec![
        host("cpus", json!({"NanoCpus": 500_000_000})),
        host("cpu shares", json!({"CpuShares": 512})),
        host("cpu period and quota", json!({"CpuPeriod": 50_000, "CpuQuota": 25_000})),
        host("cpu quota", json!({"CpuQuota": 25_000})),
        host("cpu set", json!({"CpusetCpus": "0", "CpusetMems": "0"})),
        host("weight of block devices", json!({"BlkioWeight": 300})).needs("blkio/blkio.weight"),
        host("bytes read", rate("BlkioDeviceReadBps", 1_048_576)),
        host("writes", rate("BlkioDeviceWriteIOps", 1000)),
    ]
}

fn resolving() -> Vec<Case> {
    vec![
        host("dns", json!({"Dns": ["10.9.8.7", "10.9.8.6"]})),
        host("dns search", json!({"DnsSearch": ["a.example", "b.example"]})),
        host("no dns search", json!({"DnsSearch": ["."]})),
        host("dns options", json!({"DnsOptions": ["ndots:3", "timeout:1"]})),
        host(
            "dns all of it on the host's network",
            json!({"NetworkMode": "host", "Dns": ["10.9.8.7"], "DnsSearch": ["a.example"], "DnsOptions": ["ndots:3"]}),
        ),
        host("further hosts", json!({"ExtraHosts": ["db:10.1.1.1", "db6:fd00::1", "db:10.1.1.2"]})),
        host("the host by name", json!({"ExtraHosts": ["up:host-gateway"]})),
        host(
            "further hosts on no network",
            json!({"NetworkMode": "none", "ExtraHosts": ["db:10.1.1.1"]}),
        ),
        host(
            "further hosts on the host's network",
            json!({"NetworkMode": "host", "ExtraHosts": ["db:10.1.1.1"]}),
        ),
    ]
}

fn ports() -> Vec<Case> {
    vec![
        case("mac address", json!({"MacAddress": "02:aa:bb:cc:dd:ee"})),
        case(
            "published port",
            json!({"ExposedPorts": {"80/tcp": {}},
                "HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}}}),
        ),
        case(
            "published ports of both kinds",
            json!({"ExposedPorts": {"80/tcp": {}, "53/udp": {}}, "HostConfig": {"PortBindings": {
                "80/tcp": [{"HostPort": "8081"}], "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "5353"}]}}}),
        ),
        case("exposed ports", json!({"ExposedPorts": {"80/tcp": {}, "90/udp": {}}})),
        case(
            "bridge by name",
            json!({"HostConfig": {"NetworkMode": "bridge"},
            "NetworkingConfig": {"EndpointsConfig": {"bridge": {}}}}),
        ),
        case("network disabled", json!({"NetworkDisabled": true})),
    ]
}
