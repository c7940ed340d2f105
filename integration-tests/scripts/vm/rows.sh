#!/bin/busybox sh
# What must hold where cgroup2 is the only cgroup file system. Runs in the virtual machine of
# vm.sh.
. /vm/row.sh

only_cgroup2() {
  expect "cgroup mounts" "cgroup2 $cgroups" "$(awk '$3 ~ /^cgroup/ { print $3, $2 }' /proc/mounts)"
  for controller in cpu cpuset io memory pids; do grep -qw $controller $cgroups/cgroup.controllers; done
}

engine_starts() {
  $bin/dockerd-rs --data-root /var/tmp/data --exec-root /run/e --pidfile /run/d.pid -H unix:///run/d.sock >/var/tmp/dockerd.log 2>&1 &
  until_true 30 docker version || { tail -20 /var/tmp/dockerd.log; return 1; }
  docker load -q -i /vm/busybox.tar
  expect "cgroup version" 2 "$(docker info -f '{{.CgroupVersion}}')"
}

docker_run() {
  expect "output" hi "$(docker run --rm busybox echo hi)"
  expect "exit code" 7 "$(code docker run --rm busybox sh -c 'exit 7')"
  expect "detached with a port" 64 "$(docker run -d --name web -p 127.0.0.1:8080:80 busybox httpd -f -h /var/www | tr -d '\n' | wc -c)"
  until_true 20 wget -q -O $work/page http://127.0.0.1:8080/
  expect "page" "made by a private stack" "$(cat $work/page)"
  docker rm -f web
}

docker_limits_are_files() {
  docker run -d --name limits -m 64m --memory-swap 96m --memory-reservation 32m --cpus 0.5 -c 512 --cpuset-cpus 0 --pids-limit 50 busybox sleep 1000
  local group
  group=$(cgroup_of limits)
  expect "place" "/docker/$(docker inspect -f '{{.Id}}' limits)" "${group#$cgroups}"
  expect memory.max 67108864 "$(cat "$group/memory.max")"
  expect memory.swap.max 33554432 "$(cat "$group/memory.swap.max")"
  expect memory.low 33554432 "$(cat "$group/memory.low")"
  expect cpu.max "50000 100000" "$(cat "$group/cpu.max")"
  expect cpu.weight 20 "$(cat "$group/cpu.weight")"
  expect cpuset.cpus 0 "$(cat "$group/cpuset.cpus")"
  expect pids.max 50 "$(cat "$group/pids.max")"
  expect "seen inside" 67108864 "$(docker exec limits cat /sys/fs/cgroup/memory.max)"
  expect "read-only inside" 1 "$(code docker exec limits sh -c 'echo max >/sys/fs/cgroup/memory.max')"
  expect "own root inside" "0::/" "$(docker exec limits cat /proc/self/cgroup)"
  docker rm -f limits
}

docker_without_limits() {
  docker run -d --name free busybox sleep 1000
  local group
  group=$(cgroup_of free)
  expect memory.max max "$(cat "$group/memory.max")"
  expect cpu.max "max 100000" "$(cat "$group/cpu.max")"
  expect cpu.weight 100 "$(cat "$group/cpu.weight")"
  expect pids.max max "$(cat "$group/pids.max")"
  docker rm -f free
}

out_of_memory_is_137() {
  docker run -d --name oom -m 16m --memory-swap 16m busybox sh -c 'exec tail /dev/zero'
  expect "wait" 137 "$(docker wait oom)"
  docker rm oom
  # A child of the first process dies; the container does not.
  docker run -d --name child -m 16m --memory-swap 16m busybox sh -c 'tail /dev/zero; echo $?; sleep 1000'
  until_true 60 sh -c "$bin/docker-rs -H unix:///run/d.sock logs child | grep -q 137"
  expect "still there" true "$(docker inspect -f '{{.State.Running}}' child)"
  docker rm -f child
}

pids_limit_blocks_fork() {
  docker run -d --name forks --pids-limit 3 busybox sh -c 'sleep 1000 & sleep 1000 & exec sleep 1000'
  local group
  group=$(cgroup_of forks)
  until_true 20 sh -c "[ \$(cat '$group/pids.current') = 3 ]"
  # An exec, refused where it would be born inside, is moved in over the limit; what it forks is not.
  expect "fork" "sh: can't fork: Resource temporarily unavailable" "$(docker exec forks sh -c 'sleep 1000 & echo forked' 2>&1)"
  expect "refused" 2 "$(cut -d' ' -f2 "$group/pids.events")"
  docker rm -f forks
}

cpu_limit_throttles() {
  docker run -d --name burn --cpus 0.2 busybox sh -c 'while :; do :; done'
  local group
  group=$(cgroup_of burn)
  until_true 20 sh -c "[ \$(sed -n 's/nr_throttled //p' '$group/cpu.stat') -gt 3 ]"
  docker rm -f burn
}

stop_and_kill() {
  docker run -d --name polite busybox sh -c 'trap "exit 3" TERM; while :; do sleep 0.1; done'
  docker stop -t 20 polite
  expect "its own code" 3 "$(docker inspect -f '{{.State.ExitCode}}' polite)"
  docker run -d --name stubborn busybox sh -c 'trap "" TERM; sleep 1000 & sleep 1000; sleep 1000'
  local group
  group=$(cgroup_of stubborn)
  docker stop -t 1 stubborn
  expect "killed" 137 "$(docker inspect -f '{{.State.ExitCode}}' stubborn)"
  [ ! -e "$group" ] || { echo "$group is still there"; return 1; }
  docker rm polite stubborn
}

pause_freezes() {
  docker run -d --name ice busybox sh -c 'while :; do :; done'
  local group
  group=$(cgroup_of ice)
  docker pause ice
  expect frozen "frozen 1" "$(grep frozen "$group/cgroup.events")"
  expect status paused "$(docker inspect -f '{{.State.Status}}' ice)"
  docker unpause ice
  expect thawed "frozen 0" "$(grep frozen "$group/cgroup.events")"
  docker pause ice
  # The frozen of cgroup2 die at once.
  docker rm -f ice
}

exec_joins_the_cgroup() {
  docker run -d --name host busybox sleep 1000
  docker exec -d host sleep 999
  local group
  group=$(cgroup_of host)
  until_true 10 sh -c "[ \$(wc -l <'$group/cgroup.procs') = 2 ]"
  docker rm -f host
}

devices_are_denied() {
  expect "unknown device" 1 "$(code docker run --rm busybox sh -c 'mknod /tmp/d b 254 0 && head -c1 /tmp/d')"
  docker run --rm busybox sh -c 'echo x >/dev/null && head -c1 /dev/zero && head -c1 /dev/urandom'
  docker run --rm --privileged busybox sh -c 'mknod /tmp/d b 254 0 && head -c1 /tmp/d'
}

nothing_is_left() {
  expect containers "" "$(docker ps -aq)"
  expect cgroups "" "$(find $cgroups/docker -mindepth 1 -type d)"
  kill "$(cat /run/d.pid)"
  until_true 20 sh -c '[ ! -e /run/d.pid ]'
}

# container RUNTIME NAME RESOURCES COMMAND: a bundle below $work
bundle() {
  mkdir -p "$work/$1" $work/rootfs/bin $work/rootfs/tmp
  [ -e $work/rootfs/bin/sh ] || { cp /bin/busybox $work/rootfs/bin/; for a in sh sleep mknod head echo cat; do ln -s busybox $work/rootfs/bin/$a; done; }
  cat >"$work/$1/config.json" <<JSON
{"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"args":["/bin/sh","-c","$3"],"env":["PATH=/bin"],"cwd":"/",
"capabilities":{"bounding":["CAP_MKNOD"],"effective":["CAP_MKNOD"],"permitted":["CAP_MKNOD"]}},
"root":{"path":"$work/rootfs"},"mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["mode=755"]}],
"linux":{"cgroupsPath":"/compare/$1","resources":$2,"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"network"}]}}
JSON
}

# values RUNTIME RESOURCES: every limit file of a container with these
values() {
  bundle "$1" "$2" 'sleep 1000'
  runtime "$1" run -d -b "$work/$1" "$1" </dev/null >"$work/$1/out" 2>&1 || { cat "$work/$1/out"; return 0; }
  (cd "$cgroups/compare/$1" && grep . cgroup.type cpu.idle cpu.max cpu.max.burst cpu.weight cpuset.cpus cpuset.mems io.max io.weight \
    memory.high memory.low memory.max memory.min memory.oom.group memory.swap.max pids.max hugetlb.*.max 2>/dev/null)
  runtime "$1" delete -f "$1"
}

same_values() { # RESOURCES: ours and runc's
  values ours "$1" >$work/ours.values
  values runc "$1" >$work/runc.values
  [ -s $work/runc.values ] || { echo "runc answered nothing"; return 1; }
  diff $work/runc.values $work/ours.values || { echo "for $1"; return 1; }
}

values_equal_runcs() {
  same_values '{}'
  for shares in 2 10 100 512 1024 2048 262144; do same_values "{\"cpu\":{\"shares\":$shares}}"; done
  same_values '{"cpu":{"quota":50000}}'
  same_values '{"cpu":{"period":50000}}'
  same_values '{"cpu":{"quota":-1,"period":50000}}'
  same_values '{"cpu":{"quota":150000,"period":100000,"cpus":"0","mems":"0"}}'
  same_values '{"memory":{"limit":33554432}}'
  same_values '{"memory":{"limit":33554432,"swap":67108864}}'
  same_values '{"memory":{"limit":33554432,"swap":33554432}}'
  same_values '{"memory":{"limit":33554432,"swap":-1}}'
  same_values '{"memory":{"limit":-1,"swap":-1,"reservation":1048576}}'
  same_values '{"pids":{"limit":-1}}'
  same_values '{"pids":{"limit":77}}'
  same_values '{"unified":{"memory.high":"20000000","cpu.weight":"33","memory.oom.group":"1"}}'
  # Debian 12's runc does not limit what is reserved; later ones do, as we.
  same_values '{"unified":{"hugetlb.2MB.rsvd.max":"4194304"},"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}'
  same_values '{"blockIO":{"throttleReadBpsDevice":[{"major":254,"minor":0,"rate":1048576}],"throttleWriteIOPSDevice":[{"major":254,"minor":0,"rate":100}]}}'
}

values_equal_cruns() {
  for resources in '{"memory":{"limit":33554432,"swap":67108864,"reservation":1048576}}' '{"cpu":{"quota":50000,"period":100000,"cpus":"0"}}' '{"pids":{"limit":77}}'; do
    values ours "$resources" >$work/ours.values
    values crun "$resources" >$work/crun.values
    diff $work/crun.values $work/ours.values || { echo "for $resources"; return 1; }
  done
}

# attempts RUNTIME DEVICES: what a container can open, as lines of name and exit code
attempts() {
  bundle "$1" "{\"devices\":$2}" 'sh /probe'
  cat >$work/rootfs/probe <<'PROBE'
try() {
  mknod /dev/x$1 $2 $3 $4 2>/dev/null; echo $1 mknod $?
  (exec 3</dev/x$1) 2>/dev/null; echo $1 read $?
  (exec 3>>/dev/x$1) 2>/dev/null; echo $1 write $?
}
try null c 1 3; try zero c 1 5; try kmsg c 1 11; try disk b 254 0; try tty c 5 0
PROBE
  runtime "$1" run -b "$work/$1" "$1" </dev/null 2>&1 || echo "exit $?"
}

devices_equal_runcs() {
  for devices in '[]' '[{"allow":false,"access":"rwm"}]' \
    '[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":254,"minor":0,"access":"r"}]' \
    '[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"access":"rw"},{"allow":true,"type":"c","access":"m"}]' \
    '[{"allow":true,"access":"rwm"}]' \
    '[{"allow":true,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"w"}]'; do
    attempts runc "$devices" >$work/runc.attempts
    attempts ours "$devices" >$work/ours.attempts
    grep -q 'null read' $work/runc.attempts || { cat $work/runc.attempts; return 1; }
    diff $work/runc.attempts $work/ours.attempts || { echo "for $devices"; return 1; }
  done
}

update_equals_runcs() {
  local name
  for name in runc ours; do
    bundle $name '{"memory":{"limit":33554432},"pids":{"limit":9}}' 'sleep 1000'
    runtime $name run -d -b $work/$name $name </dev/null >$work/$name/out 2>&1
    runtime $name update --memory 50331648 --memory-swap 67108864 --cpu-quota 20000 --cpu-share 2048 --pids-limit 20 $name
    (cd $cgroups/compare/$name && grep . memory.max memory.swap.max cpu.max cpu.weight pids.max) >$work/$name.values
    runtime $name delete -f $name
  done
  diff $work/runc.values $work/ours.values
}

# `make test` kills, races and damages more often, on a processor of its own.
integration_runtime() { TMPDIR=/disk EVERY=31 ROUNDS=50 N=20 /tests/runtime --test-threads=2; }
# Of the others what has to do with cgroups: without KVM everything takes ten times as long.
integration_shim() { /tests/shim --test-threads=2 lifecycle; }
integration_containerd() { /tests/containerd --test-threads=2 tasks; }

row "cgroup2 is the only cgroup file system" only_cgroup2
row "dockerd-rs starts and loads an image" engine_starts
row "docker run: output, exit code, published port" docker_run
row "docker run -m --cpus -c --cpuset-cpus --pids-limit: the files" docker_limits_are_files
row "docker run without limits: the files" docker_without_limits
row "out of memory: 137" out_of_memory_is_137
row "--pids-limit blocks fork" pids_limit_blocks_fork
row "--cpus throttles" cpu_limit_throttles
row "docker stop: TERM, then KILL, and the cgroup goes" stop_and_kill
row "docker pause and unpause" pause_freezes
row "docker exec joins the cgroup" exec_joins_the_cgroup
row "devices: denied, the usual ones allowed, privileged all" devices_are_denied
row "nothing is left" nothing_is_left
row "runc-rs writes the values that runc writes" values_equal_runcs
row "runc-rs writes the values that crun writes" values_equal_cruns
row "runc-rs allows and denies the devices that runc does" devices_equal_runcs
row "runc-rs update writes the values that runc update writes" update_equals_runcs
for tests in runtime shim containerd; do
  [ ! -x /tests/$tests ] || row "integration tests: $tests" integration_$tests
done
echo "$rows rows, $failed failed"
