//! Tables of command lines that docker-rs and the stock client of 20.10 run over one engine, in one
//! version of its API: stdout, stderr and exit code are the same, to the letter but for ids, times
//! and the hint that follows a mistake, which docker 28 words anew. Where docker 28, whose words
//! are ours, says something else than 20.10 does, its words stand in the table.

use integration_tests::image;
use integration_tests::pool::lease;
use integration_tests::registry::Registry;
use serde_json::json;

use crate::beside::Same::{
    self, AsNewer, AsOlder, ButForTheHint, Exactly, InAnyOrder, OnPurpose, PrintsAsNewer,
};
use crate::beside::compare;

#[test]
fn the_life_of_a_container() {
    let stack = lease();
    let no_image = if stack.is_stock() {
        "Error response from daemon: no such image: nope: No such image: nope:latest\n"
    } else {
        "Error: No such image: nope:latest\n"
    };
    compare(
        &stack,
        &[
            ("create --name aa busybox sleep 1000", Exactly),
            ("ps", Exactly),
            ("ps -a", Exactly),
            ("ps -aq", Exactly),
            ("ps -a --no-trunc", Exactly),
            (
                "ps -a --format '{{.Names}}\\t{{.Status}}\\t{{.Ports}}\\t{{.Command}}\\t{{.State}}'",
                Exactly,
            ),
            (
                "ps -a --format 'table {{.Names}}\\t{{.Image}}\\t{{.Labels}}\\t{{.Mounts}}\\t{{.Networks}}'",
                Exactly,
            ),
            ("start aa nope", Exactly),
            ("start aa", Exactly),
            ("ps", Exactly),
            ("container ls -q -f name=aa", Exactly),
            ("inspect aa", Exactly),
            ("inspect -s aa", Exactly),
            (
                "inspect --format '{{.State.Status}} {{.Name}} {{json .Config.Cmd}}' aa nope",
                Exactly,
            ),
            ("inspect --type image nope", AsNewer(1, no_image)),
            ("pause aa", Exactly),
            ("ps --format '{{.Status}}'", Exactly),
            ("exec aa true", Exactly),
            ("attach aa", Exactly),
            ("unpause aa bb", Exactly),
            ("exec aa echo hi", Exactly),
            ("exec -e A=1 -w /tmp -u 5 aa sh -c 'echo $A; pwd; id -u; exit 4'", Exactly),
            ("exec -i aa cat < some\\nlines", Exactly),
            ("exec -d aa true", Exactly),
            ("exec bb true", Exactly),
            ("exec -it aa true", Exactly),
            ("top aa -o pid,args -C nothing", Exactly),
            ("port aa", Exactly),
            ("port aa 80", AsNewer(1, "Error: No public port '80' published for aa\n")),
            ("rename aa a2", Exactly),
            ("rename aa bb", Exactly),
            ("kill -s USR1 a2", Exactly),
            ("kill -s NOPE a2", Exactly),
            ("restart -t 0 a2", Exactly),
            ("stop -t 0 a2 nope", Exactly),
            ("wait a2", Exactly),
            ("kill a2", Exactly),
            ("attach a2", Exactly),
            ("logs a2", Exactly),
            ("logs nope", Exactly),
            ("rm nope a2", Exactly),
            ("rm -f nope", Exactly),
            ("wait nope", Exactly),
            ("ps -a", Exactly),
        ],
        &[],
    );
}

#[test]
fn runs_with_flags() {
    let stack = lease();
    compare(
        &stack,
        &[
            ("run --rm busybox sh -c 'echo out; echo err >&2; exit 3'", Exactly),
            ("run -i --rm busybox cat < in\\nput", Exactly),
            ("run -d --name dd -l a=b -l c busybox sleep 1000", Exactly),
            ("inspect -f '{{json .Config.Labels}} {{.Config.AttachStdout}}' dd", Exactly),
            ("run --name dd busybox", ButForTheHint),
            ("run --rm nope:1", ButForTheHint),
            ("run --rm --pull never nope:1", ButForTheHint),
            ("run --rm --network nope busybox", ButForTheHint),
            ("run --rm busybox nope", ButForTheHint),
            ("run --rm -e A=1 -e HOME=/x --entrypoint env busybox", InAnyOrder),
            ("run --rm -w /tmp -u 1:2 busybox sh -c 'pwd; id -u; id -g'", Exactly),
            ("run --rm -h host busybox hostname", Exactly),
            (
                "run --rm -v /etc/hostname:/h:ro -v vol:/v busybox sh -c 'echo x >/h; grep -c . /h'",
                Exactly,
            ),
            (
                "create --name ff -m 64m --memory-swap 128m --cpus 1.5 --cpu-shares 5 --pids-limit 7 --privileged --read-only --init=false --tmpfs /t:size=1m --add-host x:1.2.3.4 --dns 1.2.3.4 --dns-search s --dns-option o --cap-add NET_ADMIN --cap-drop MKNOD --restart on-failure:3 --stop-signal INT --stop-timeout 4 --log-driver none --ulimit nofile=5:6 --shm-size 1m --sysctl net.ipv4.ip_forward=1 --oom-score-adj 5 --group-add 5 --device /dev/null:/dev/n:r --security-opt label=disable -p 127.0.0.1:8099:80 -p 81/udp --expose 90-91 busybox",
                Exactly,
            ),
            ("inspect ff", Exactly),
            (
                "create --name gg --mount type=bind,src=/etc,dst=/m,ro --mount type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700 --mount type=volume,src=vol,dst=/v,volume-nocopy,volume-label=a=b --label-file /dev/null --cgroupns host --userns host --domainname d busybox",
                Exactly,
            ),
            // Stock has the mounts in the order of a hash table.
            ("inspect gg", InAnyOrder),
            (
                "create --name ii --security-opt systempaths=unconfined --security-opt no-new-privileges busybox",
                Exactly,
            ),
            (
                "inspect -f '{{json .HostConfig.SecurityOpt}} {{json .HostConfig.MaskedPaths}} {{json .HostConfig.ReadonlyPaths}}' ii",
                Exactly,
            ),
            ("create --security-opt systempaths=x busybox", ButForTheHint),
            ("create --security-opt systempaths:unconfined busybox", ButForTheHint),
            // 28 has it for a network alone, and so not for engines older than 1.44.
            ("create --name hh --mac-address 02:42:ac:11:00:09 busybox", AsOlder),
            ("inspect -f '{{.Config.MacAddress}} {{.HostConfig.NetworkMode}}' hh", AsOlder),
            ("run --rm --mount type=bind,src=/nope,dst=/m busybox", ButForTheHint),
            ("run --rm --mount type=foo,dst=/m busybox", ButForTheHint),
            ("run --rm -m 1 busybox", ButForTheHint),
            (
                "run --rm --restart always busybox",
                AsNewer(125, "docker: conflicting options: cannot specify both --restart and --rm"),
            ),
            (
                "run -d -a stdout busybox",
                AsNewer(1, "conflicting options: cannot specify both --attach and --detach\n"),
            ),
            ("run -it --rm busybox", Exactly),
            ("run --rm --env-file /nope busybox", ButForTheHint),
            ("run --rm --label-file /nope busybox", ButForTheHint),
            ("update dd", Exactly),
            ("update -m 64m --memory-swap 64m --cpus 1 --restart no dd nope", Exactly),
            ("inspect -f '{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}' dd", Exactly),
            ("rm -f dd ff gg ii", Exactly),
            ("rm hh", AsOlder),
            ("volume rm vol", Exactly),
        ],
        &["volume rm vol"],
    );
}

#[test]
fn mistakes_in_the_flags_of_run() {
    let stack = lease();
    let table: Vec<(&str, Same)> = [
        "run --nope busybox",
        "run -Z busybox",
        "ps -aqZ",
        "run --memory",
        "run -m x busybox",
        "run --cpus x busybox",
        "run -e =x busybox",
        "run -a foo busybox",
        "run --rm=maybe busybox",
        "run --ulimit foo busybox",
        "run --ulimit foo=1 busybox",
        "run --ulimit nofile=x busybox",
        "run --ulimit nofile=5:3 busybox",
        "run --add-host x busybox",
        "run --blkio-weight x busybox",
        "run --blkio-weight 100000 busybox",
        "run --blkio-weight-device x busybox",
        "run --blkio-weight-device x:500 busybox",
        "run --device-read-bps /dev/x:x busybox",
        "run --device-write-iops /dev/x:1mb busybox",
        "run --device-cgroup-rule x busybox",
        "run --link a:b:c busybox",
        "run --memory-swappiness 200 busybox",
        "run --mac-address x busybox",
        "run --userns x busybox",
        "run --pid x busybox",
        "run --uts x busybox",
        "run --cgroupns x busybox",
        "run --storage-opt x busybox",
        "run --log-driver none --log-opt a=b busybox",
        "run --device x:y:z busybox",
        "run --health-cmd x --no-healthcheck busybox",
        "run --health-interval -1s busybox",
        "run --health-retries -1 busybox",
        "run --mount type=bind busybox",
        "run --mount dst=/m,foo=bar busybox",
        "run --mount type=bind,dst=/m,volume-nocopy busybox",
        "run --mount type=tmpfs,dst=/m,tmpfs-size=x busybox",
        "run --security-opt x busybox",
        "run --security-opt seccomp=/nope busybox",
        "run",
    ]
    .map(|line| (line, ButForTheHint))
    .into();
    compare(&stack, &table, &[]);
}

#[test]
fn mistakes() {
    let stack = lease();
    let mut table: Vec<(&str, Same)> = [
        "create",
        "start",
        "stop",
        "restart",
        "kill",
        "rm",
        "exec",
        "exec a",
        "attach",
        "logs a b",
        "inspect",
        "rename a",
        "ps x",
        "images a b",
        "pull",
        "tag a",
        "rmi",
        "load x",
        "events x",
        "version x",
        "info x",
        "update",
        "volume rm",
        "volume ls x",
        "volume create a b",
        "network inspect",
        "network ls x",
        "container prune x",
        "image prune x",
        "image inspect",
        "ps -f x",
        "ps -n x",
    ]
    .map(|line| (line, ButForTheHint))
    .into();
    table.extend([
        ("run --dns x busybox", AsNewer(125, "invalid argument \"x\" for \"--dns\" flag: IP address is not correctly formatted: x")),
        ("run --sysctl x=y busybox", AsNewer(125, "invalid argument \"x=y\" for \"--sysctl\" flag: sysctl 'x=y' is not allowed")),
        ("run -v aa:bb:cc:dd busybox", AsNewer(125, "docker: invalid spec: aa:bb:cc:dd: too many colons")),
        ("create -v :/x busybox", AsNewer(125, "docker: invalid spec: :/x: empty section between colons")),
        ("create -v xx: busybox", AsNewer(125, "docker: invalid spec: xx:: empty section between colons")),
        ("run --expose 80-70 busybox", ButForTheHint),
        ("run busyBox", AsNewer(125, "docker: invalid reference format: repository name (library/busyBox) must be lowercase")),
        ("tag busybox busyBox", AsNewer(1, "Error parsing reference: \"busyBox\" is not a valid repository/tag: invalid reference format: repository name (library/busyBox) must be lowercase\n")),
        ("inspect --type x busybox", OnPurpose(1, "unknown type: \"x\": must be one of \"container\", \"image\", \"network\", \"volume\"\n")),
        ("rmi nope", AsNewer(1, "Error: No such image: nope:latest\n")),
        ("images --format '{{.Nope}}'", Exactly),
        ("start -a x y", Exactly),
        ("rename '' ''", AsNewer(1, "Error: Neither old nor new names may be empty\n")),
        ("kill -s '' nope", Exactly),
        ("ps -f nope=1", Exactly),
        ("ps --format '{{.Nope}}'", Exactly),
        ("ps --format '{{.ID'", AsNewer(1, "failed to parse template: template: :1: unclosed action\n")),
        ("inspect -f '{{.ID' busybox", AsNewer(64, "template parsing error: template: :1: unclosed action\n")),
        ("-H bar://x ps", AsNewer(1, "Failed to initialize: unable to resolve docker endpoint: invalid bind address format: bar://x\n")),
        ("-H unix:///nope.sock ps", Exactly),
        ("-H tcp://127.0.0.1:1 ps", Exactly),
    ]);
    compare(&stack, &table, &[]);
}

#[test]
fn images_and_a_registry() {
    let stack = lease();
    let registry = Registry::start(stack.sandbox());
    let layer = image::layer(&[("extra", "more")]);
    let digest = registry.push(
        "lib/one",
        "1",
        &json!({"config": {"Cmd": ["x"]}}),
        std::slice::from_ref(&layer),
    );
    let host = &registry.host;
    let archive = image::busybox_archive().display();
    let lines = [
        "images".to_owned(),
        "images -q".to_owned(),
        "images --no-trunc".to_owned(),
        "images --digests".to_owned(),
        "images --format '{{.Repository}}:{{.Tag}} {{.ID}} {{.Size}} {{.Digest}}'".to_owned(),
        format!("load -i {archive}"),
        format!("load -q -i {archive}"),
        "load -i /nope".to_owned(),
        "tag busybox one:1".to_owned(),
        "tag nope one:2".to_owned(),
        "images one".to_owned(),
        "images -f reference=one:*".to_owned(),
        "images -f nope=1".to_owned(),
        "rmi one:1".to_owned(),
        "rmi one:1".to_owned(),
        format!("pull {host}/lib/none:1"),
        format!("pull -q {host}/lib/one:1"),
        format!("pull {host}/lib/one:1"),
        format!("images --digests {host}/lib/one"),
        format!("inspect -f '{{{{json .RepoTags}}}} {{{{json .RepoDigests}}}}' {host}/lib/one:1"),
        format!("run --rm --pull always {host}/lib/one:1"),
        format!("pull -q {host}/lib/one@{digest}"),
        format!("rmi {host}/lib/one:1"),
        format!("pull -q {host}/lib/one@{digest}"),
        format!("images --digests {host}/lib/one"),
        format!("images {host}/lib/one"),
        format!(
            "images --format '{{{{.Repository}}}} {{{{.Tag}}}} {{{{.Digest}}}}' {host}/lib/one"
        ),
        "create --name uu busybox".to_owned(),
        "rmi busybox".to_owned(),
        "rm uu".to_owned(),
        format!("rmi {host}/lib/one@{digest}"),
        "image prune -f".to_owned(),
    ];
    let mut table: Vec<(&str, Same)> =
        lines.iter().map(|line| (line.as_str(), InAnyOrder)).collect();
    for (line, same) in &mut table {
        if line.starts_with("run ") {
            *same = ButForTheHint;
        }
    }
    let load = format!("load -i {archive}");
    compare(&stack, &table, &[&load]);
}

#[test]
fn volumes_networks_and_prunes() {
    let stack = lease();
    compare(
        &stack,
        &[
            ("volume ls", Exactly),
            ("volume create v10", Exactly),
            ("volume create --label a=b -d local -o type=tmpfs -o device=tmpfs v2", Exactly),
            ("volume create", Exactly),
            ("volume create 'bad name'", Exactly),
            (
                "volume create --name x y",
                AsNewer(
                    1,
                    "conflicting options: cannot specify a volume-name through both --name and as a positional arg\n",
                ),
            ),
            ("volume ls -f name=v", Exactly),
            ("volume ls -q -f name=v", Exactly),
            (
                "volume ls -f name=v --format '{{.Name}} {{.Driver}} {{.Labels}} {{.Label \"a\"}} {{.Scope}} {{.Size}} {{.Links}}'",
                Exactly,
            ),
            ("volume ls -f name=v --format raw", Exactly),
            ("volume ls -f nope=1", Exactly),
            (
                "volume inspect -f '{{.Name}} {{json .Labels}} {{json .Options}}' v2 v10",
                PrintsAsNewer(
                    "v2 {\"a\":\"b\"} {\"device\":\"tmpfs\",\"type\":\"tmpfs\"}\nv10 null null\n",
                ),
            ),
            ("volume rm v10", Exactly),
            ("volume rm -f nope", Exactly),
            (
                "volume prune < n\\n",
                PrintsAsNewer(
                    "WARNING! This will remove all local volumes not used by at least one container.\nAre you sure you want to continue? [y/N] ",
                ),
            ),
            ("volume prune -f --filter label=nope", Exactly),
            ("volume prune -f", InAnyOrder),
            ("volume rm v2", Exactly),
            ("volume prune -f", Exactly),
            ("network ls", Exactly),
            ("network ls -q", Exactly),
            ("network ls --no-trunc", Exactly),
            (
                "network ls -f driver=bridge --format '{{.Name}} {{.Driver}} {{.Scope}} {{.IPv6}} {{.Internal}}'",
                Exactly,
            ),
            ("network ls --format raw", Exactly),
            ("network ls --format '{{.Nope}}'", Exactly),
            ("network inspect -f '{{.Name}} {{.Driver}} {{json .Options}}' bridge", Exactly),
            ("network prune -f", Exactly),
            ("network prune < n\\n", Exactly),
            ("create --name pp busybox", Exactly),
            (
                "container prune < n\\n",
                PrintsAsNewer(
                    "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ",
                ),
            ),
            ("container prune -f --filter until=24h", Exactly),
            ("container prune -f --filter nope=1", Exactly),
            ("container prune -f", Exactly),
            ("container prune -f", Exactly),
        ],
        &[],
    );
}

#[test]
fn the_engine_itself() {
    let stack = lease();
    compare(
        &stack,
        &[
            (
                "version -f '{{.Server.Version}} {{.Server.APIVersion}} {{.Server.Os}} {{.Client.APIVersion}}'",
                Exactly,
            ),
            ("version -f '{{json .Server.Components}}'", Exactly),
            (
                "info -f '{{.ID}} {{.Driver}} {{.Containers}} {{.Images}} {{.NCPU}} {{json .Plugins}}'",
                Exactly,
            ),
            (
                "info -f '{{json .RegistryConfig.InsecureRegistryCIDRs}} {{.CgroupDriver}} {{json .SecurityOptions}}'",
                Exactly,
            ),
            ("create --name ee -l k=v busybox true", Exactly),
            ("start -a ee", Exactly),
            ("rm ee", Exactly),
            ("events --since 1h --until 0s -f container=nope", Exactly),
            ("events --since x", Exactly),
            (
                "events --until 1 --format '{{.X'",
                AsNewer(64, "Error parsing format: template: :1: unclosed action\n"),
            ),
        ],
        &[],
    );
}
