#!/bin/busybox sh
# What must hold where systemd is the first process and AppArmor confines: the systemd driver and
# the labels. One container, `box`, by runc and then by runc-rs: what both leave to see is the same.
. /vm/row.sh
. /vm/pair.sh

driver=--systemd-cgroup
path= # cgroupsPath
resources='{}'
annotations='{}'
process= # further members of process
command='sleep 1000'

bundle() {
  mkdir -p $work/$id $work/rootfs/bin $work/rootfs/tmp
  [ -e $work/rootfs/bin/sh ] || { cp /bin/busybox $work/rootfs/bin/; for a in sh sleep mknod tail cat; do ln -s busybox $work/rootfs/bin/$a; done; }
  rm -f $work/rootfs/tmp/*
  cat >$work/$id/config.json <<JSON
{"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"args":["/bin/sh","-c","$command"],"env":["PATH=/bin"],"cwd":"/",$process
"capabilities":{"bounding":["CAP_MKNOD"],"effective":["CAP_MKNOD"],"permitted":["CAP_MKNOD"]}},
"root":{"path":"$work/rootfs"},"mounts":[{"destination":"/proc","type":"proc","source":"proc"},{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["mode=755"]}],
"annotations":$annotations,
"linux":{"cgroupsPath":"$path","resources":$resources,"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"network"},{"type":"cgroup"}]}}
JSON
}

# Every property that is not the moment's. Devices are told as newer releases of runc do it: those too that
# this host has not, groups by number, and so that systemd need not be told to read its drop-ins again.
unit() { # NAME
  systemctl show "$1" | grep -vE '^(InvocationID|ControlGroupId|CPUUsageNSec|MemoryCurrent|MemoryAvailable|TasksCurrent|IO(Read|Write)(Bytes|Operations))=|Timestamp' |
    grep -vE '^(DropInPaths|NeedDaemonReload|DeviceAllow=/dev/char/10:200 rwm)' | sed 's/=char-pts /=char-136 /' | sort
}

files() { # DIRECTORY: every limit
  (cd "$cgroups$1" && grep . cgroup.subtree_control cgroup.freeze cpu.idle cpu.max cpu.weight cpuset.cpus cpuset.mems io.max \
    memory.high memory.low memory.max memory.min memory.oom.group memory.swap.max pids.max hugetlb.*.max 2>/dev/null)
}

# What systemd-v1.sh has otherwise: what a process says of its place, and the directories of one.
groups() { cat; }
directories() { echo "$cgroups$1"; } # PLACE

gone() { # NAME PLACE
  local directory
  systemctl show -p LoadState -p ActiveState -p SubState "$1"
  for directory in $(directories "$2"); do [ ! -e "$directory" ] || echo "$directory is still there"; done
}

systemd_rules() {
  expect "first process" systemd "$(cat /proc/1/comm)"
  expect "cgroup mounts" "cgroup2 $cgroups" "$(awk '$3 ~ /^cgroup/ { print $3, $2 }' /proc/mounts)"
  expect "AppArmor" Y "$(cat /sys/module/apparmor/parameters/enabled)"
  grep -qw apparmor /sys/kernel/security/lsm
  until_true 20 systemctl show -p Version
}

# life NAME: of a unit, from create to delete
life() {
  bundle
  call_detached create -b $work/$id $id
  local place
  [ -e "$work/state-$turn/$id" ] || { unit "$1"; return; }
  place=$(place)
  echo "$place" "$(status)"
  unit "$1"
  files "$place"
  call start $id
  call exec $id cat /proc/self/cgroup | groups
  local directory
  for directory in $(directories "$place"); do wc -l <"$directory/cgroup.procs"; done
  # Later commands need not be told who made the cgroup.
  runtime "$turn" kill $id KILL
  runtime "$turn" delete -f $id
  gone "$1" "$place"
}

scopes_equal_runcs() {
  same Slice=system.slice life runc-box.scope
  resources='{"memory":{"limit":33554432,"swap":67108864,"reservation":16777216},"cpu":{"shares":512,"quota":25500,"period":50000,"cpus":"0","mems":"0"},"pids":{"limit":77}}'
  same CPUQuotaPerSecUSec=510ms life runc-box.scope
  resources='{"memory":{"limit":33554432,"swap":33554432},"cpu":{"quota":-1},"pids":{"limit":-1},"unified":{"memory.high":"20000000","cpu.weight":"33","memory.oom.group":"1"}}'
  same MemoryHigh=20000000 life runc-box.scope
}

own_slices_equal_runcs() {
  path=rows-in.slice:prefix:name
  same /rows.slice/rows-in.slice/prefix-name.scope life prefix-name.scope
  path=:prefix:name
  same /system.slice/prefix-name.scope life prefix-name.scope
  # systemd puts no process into a slice.
  path=rows.slice::rows-box.slice
  same "Cannot set property PIDs" life rows-box.slice
}

annotated() {
  bundle
  call_detached create -b $work/$id $id
  unit runc-box.scope
  call delete -f $id
}

annotations_are_properties() {
  annotations='{"org.systemd.property.TimeoutStopSec":"3","org.systemd.property.CollectMode":"'"'inactive-or-failed'"'","org.systemd.property.MemoryMin":"uint64 4096","org.systemd.property.After":"['"'rows.service'"']"}'
  same TimeoutStopUSec=3s annotated
  same CollectMode=inactive-or-failed annotated
  # systemd does not know it, and what it says is told.
  annotations='{"org.systemd.property.NoSuchThing":"true"}'
  same "create: 1" annotated
}

updated() {
  bundle
  call_detached run -d -b $work/$id $id
  local place
  place=$(place)
  call update --memory 50331648 --memory-swap 67108864 --cpu-quota 20000 --cpu-share 2048 --pids-limit 20 $id
  unit runc-box.scope
  files "$place"
  echo '{"cpu":{"quota":30000,"period":50000},"memory":{"reservation":1048576},"pids":{"limit":-1}}' >$work/more
  call update -r $work/more $id
  unit runc-box.scope
  files "$place"
  # It dies of that, and its unit may be gone before the runtime has come to its end.
  call update --memory 1k $id >/dev/null
  until_true 60 [ ! -e "$cgroups$place" ]
  unit runc-box.scope
  call delete -f $id
}

update_changes_properties() {
  resources='{"memory":{"limit":33554432},"pids":{"limit":9}}'
  same MemoryMax=50331648 updated
}

probe() {
  cat >$work/rootfs/probe <<'PROBE'
try() {
  rm -f /dev/x$1; mknod /dev/x$1 $2 $3 $4 2>/dev/null; echo $1 mknod $?
  (exec 3</dev/x$1) 2>/dev/null; echo $1 read $?
  (exec 3>>/dev/x$1) 2>/dev/null; echo $1 write $?
}
try null c 1 3; try disk b 254 0; try other b 254 16
PROBE
  call exec $id sh /probe
}

reloaded() {
  bundle
  call_detached run -d -b $work/$id $id
  local place
  place=$(place)
  probe
  systemctl daemon-reload
  unit runc-box.scope
  files "$place"
  probe
  # Now systemd writes everything once more.
  systemctl set-property --runtime runc-box.scope CPUWeight=50
  files "$place"
  probe
  call update --pids-limit 21 $id
  systemctl show -p TasksMax runc-box.scope
  files "$place"
  call delete -f $id
  gone runc-box.scope "$place"
}

reload_loses_nothing() {
  resources='{"memory":{"limit":33554432,"swap":33554432},"cpu":{"quota":50000,"cpus":"0"},"pids":{"limit":9},"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":254,"minor":16,"access":"r"}]}'
  same "other read 0" reloaded
  # What is excepted from a yes runc's loses here, and all else with it.
  resources='{"devices":[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":254,"minor":16,"access":"w"}]}'
  turn=ours
  local said
  said=$(reloaded)
  expect "three times" 3 "$(echo "$said" | grep -c '^other write 1$')" || { echo "$said"; return 1; }
  expect "three times" 9 "$(echo "$said" | grep -cE '^(null|disk) write 0$|^other read 0$')" || { echo "$said"; return 1; }
}

paused() {
  bundle
  call_detached run -d -b $work/$id $id
  local place
  place=$(place)
  call pause $id
  status
  grep frozen "$cgroups$place/cgroup.events"
  systemctl show -p ActiveState -p FreezerState runc-box.scope
  call update --pids-limit 30 $id
  cat "$cgroups$place/pids.max"
  grep frozen "$cgroups$place/cgroup.events"
  call resume $id
  status
  call pause $id
  call delete -f $id
  gone runc-box.scope "$place"
}

pause_and_resume() { same paused paused; }

out_of_memory() {
  bundle
  call run -b $work/$id $id
  gone runc-box.scope /system.slice/runc-box.scope
}

# A child of the first process; and what the unit has to say of it.
out_of_memory_below() {
  bundle
  call_detached run -d -b $work/$id $id
  local place
  place=$(place)
  until_true 60 grep -q '^oom_kill [1-9]' "$cgroups$place/memory.events"
  call exec $id cat /proc/1/comm
  systemctl show -p ActiveState -p Result runc-box.scope
  call delete -f $id
  gone runc-box.scope "$place"
}

memory_runs_out() {
  resources='{"memory":{"limit":16777216,"swap":16777216}}'
  command='exec tail /dev/zero'
  same "run: 137" out_of_memory
  command='tail /dev/zero; sleep 1000'
  same Result= out_of_memory_below
}

stopped() {
  bundle
  call_detached run -d -b $work/$id $id
  local place
  place=$(place)
  systemctl stop runc-box.scope 2>&1 | grep -v '^Warning: The unit file'
  status
  call exec $id cat /proc/1/comm
  gone runc-box.scope "$place"
  call delete $id
  # The name is free again.
  call_detached run -d -b $work/$id $id
  status
  call delete -f $id
  gone runc-box.scope "$place"
}

stop_of_the_unit_ends_the_container() {
  command="trap 'exit 3' TERM; sleep 1000 & wait"
  same stopped stopped
}

# Another container's unit is not ours to stop.
taken_name_is_refused() {
  turn=ours path=:rows:taken
  bundle
  call_detached run -d -b $work/$id $id
  expect "second" 1 "$(code runtime $turn --systemd-cgroup run -d -b $work/$id second)"
  expect "first" "running ActiveState=active" "$(status) $(systemctl show -p ActiveState rows-taken.scope)"
  call delete -f $id
}

engine_over_systemd() {
  $bin/dockerd-rs --data-root /var/tmp/data --exec-root /run/e --pidfile /run/d.pid -H unix:///run/d.sock \
    --exec-opt native.cgroupdriver=systemd >/var/tmp/dockerd.log 2>&1 &
  until_true 30 docker version || { tail -20 /var/tmp/dockerd.log; return 1; }
  docker load -q -i /vm/busybox.tar
  expect driver "systemd 2" "$(docker info -f '{{.CgroupDriver}} {{.CgroupVersion}}')"
  local scope group
  docker run -d --name limits --network none -m 64m --memory-swap 96m --cpus 0.5 --pids-limit 50 busybox sleep 1000
  scope=docker-$(docker inspect -f '{{.Id}}' limits).scope
  group=$(cgroup_of limits)
  expect place "/system.slice/$scope" "${group#$cgroups}"
  expect properties "CPUQuotaPerSecUSec=500ms MemoryMax=67108864 MemorySwapMax=33554432 Slice=system.slice TasksMax=50" \
    "$(systemctl show -p Slice -p MemoryMax -p MemorySwapMax -p CPUQuotaPerSecUSec -p TasksMax "$scope" | sort | paste -sd ' ' -)"
  expect memory.max 67108864 "$(docker exec limits cat /sys/fs/cgroup/memory.max)"
  docker update --pids-limit 60 limits
  expect "updated" TasksMax=60 "$(systemctl show -p TasksMax "$scope")"
  docker pause limits
  docker unpause limits
  docker rm -f limits
  expect "after" "LoadState=not-found" "$(systemctl show -p LoadState "$scope")"
  [ ! -e "$group" ]
  docker run -d --name own --network none --cgroup-parent rows-docker.slice busybox sh -c 'trap "exit 3" TERM; sleep 1000 & wait'
  group=$(cgroup_of own)
  expect place "/rows.slice/rows-docker.slice" "$(dirname "${group#$cgroups}")"
  systemctl stop "${group##*/}"
  expect "wait" 3 "$(docker wait own)"
  docker rm own
}

load_profiles() {
  cat >$work/profiles <<'PROFILES'
profile rows-denies flags=(attach_disconnected) {
  file,
  capability,
  network,
  signal,
  deny /tmp/forbidden w,
}
profile rows-other flags=(attach_disconnected) {
  file,
  signal,
  deny /tmp/other w,
}
profile rows-complains flags=(attach_disconnected,complain) {
  signal,
}
PROFILES
  apparmor_parser -r -K $work/profiles
  grep '^rows-' /sys/kernel/security/apparmor/profiles | sort
}

profiles_load() {
  expect loaded "rows-complains (complain)
rows-denies (enforce)
rows-other (enforce)" "$(load_profiles 2>$work/told)" || { cat $work/told; return 1; }
}

attempt='exec 2>&1; cat /proc/self/attr/current; for f in forbidden other allowed; do echo x >/tmp/$f; echo $f $?; done'

confined() {
  command=$attempt
  bundle
  call run -b $work/$id $id
}

entered() {
  command='sleep 1000'
  bundle
  call_detached run -d -b $work/$id $id
  cat "/proc/$(pid)/attr/current"
  call exec $id sh -c "$attempt"
  for other in rows-other unconfined rows-none; do call exec --apparmor $other $id sh -c "$attempt"; done
  echo '{"user":{"uid":7,"gid":7},"args":["cat","/proc/self/attr/current"],"env":["PATH=/bin"],"cwd":"/","apparmorProfile":"rows-other"}' >$work/process
  call exec -p $work/process $id
  call kill $id KILL
  call delete -f $id
}

profiles_confine() {
  process='"apparmorProfile":"unconfined",'
  same "forbidden 0" confined
  process='"apparmorProfile":"rows-denies","noNewPrivileges":true,'
  same "rows-denies (enforce)" confined
  process='"apparmorProfile":"rows-complains",'
  same "rows-complains//null-/bin/busybox (complain)" confined
  process='"apparmorProfile":"rows-denies",'
  same "rows-denies (enforce)" entered
  grep -q "can't create /tmp/forbidden: Permission denied" $work/ours.says
  process=
  same "rows-other (enforce)" entered
}

missing() {
  command=$attempt
  bundle
  call_detached --log $work/log create -b $work/$id $id
  sed 's/^time="[^"]*" //' $work/log
  [ ! -e "$work/state-$turn/$id" ] || echo "$id is still there"
  gone runc-box.scope /system.slice/runc-box.scope
}

profile_that_is_not_loaded() {
  process='"apparmorProfile":"rows-none",'
  same "apparmor" missing
}

docker_confines() {
  expect "run" "rows-denies (enforce)" "$(docker run --rm --network none --security-opt apparmor=rows-denies busybox cat /proc/self/attr/current)"
  docker run -d --name confined --network none --security-opt apparmor=rows-denies busybox sleep 1000
  expect "inspect" rows-denies "$(docker inspect -f '{{.AppArmorProfile}}' confined)"
  expect "exec" "rows-denies (enforce)" "$(docker exec confined cat /proc/self/attr/current)"
  expect "write" 1 "$(code docker exec confined sh -c 'echo x >/tmp/forbidden')"
  docker rm -f confined
}

nothing_is_left() {
  expect containers "" "$(docker ps -aq)"
  expect units "" "$(systemctl list-units --all --plain --no-legend 'runc-*' 'docker-*' 'prefix-*' 'rows-*' | grep -v '\.slice')"
  kill "$(cat /run/d.pid)"
  until_true 20 sh -c '[ ! -e /run/d.pid ]'
}

if [ -d $cgroups/systemd ]; then
  . /vm/systemd-v1.sh
  exit
fi

row "systemd is the first process, on cgroup2 alone, and AppArmor is on" systemd_rules
row "a scope's life is that of runc's: properties, place, files, end" scopes_equal_runcs
row "slices of one's own, and a container that is one" own_slices_equal_runcs
row "annotations are properties of the unit" annotations_are_properties
row "update changes properties and files" update_changes_properties
row "systemd reloads, and limits and device rules stay" reload_loses_nothing
row "pause and resume" pause_and_resume
row "out of memory" memory_runs_out
row "systemctl stop ends the container" stop_of_the_unit_ends_the_container
row "a unit of that name is somebody else's" taken_name_is_refused
row "dockerd-rs --exec-opt native.cgroupdriver=systemd" engine_over_systemd
row "profiles are loaded" profiles_load
row "profiles hold for run and exec" profiles_confine
row "a profile that is not loaded" profile_that_is_not_loaded
row "docker run --security-opt apparmor=" docker_confines
. /vm/rootless-rows.sh
row "nothing is left" nothing_is_left
. /vm/apparmor-rows.sh
echo "$rows rows, $failed failed"
