# What of systemd-rows.sh is otherwise where systemd has mounted a hierarchy for each controller.

# Sorted: systemd mounts them in the order of a hash table. Debian 12's runc does not know the last of
# the controllers; newer ones do, as we.
place() { groups <"/proc/$(pid)/cgroup"; }
groups() { sed -e 's/^[0-9]*://' -e /^misc:/d | sort; }

# directories PLACE: of each controller that has one
directories() {
  local controllers directory
  echo "$1" | while IFS=: read -r controllers directory; do
    [ -z "$controllers" ] || echo "$cgroups/${controllers#name=}$directory"
  done
}

files() { # PLACE: every limit; of devices as unit() has them
  local directory
  for directory in $(directories "$1"); do
    (cd "$directory" && echo "$directory" && grep -s . devices.list | grep -v 'c 10:200' | sort
      grep -s . cpu.shares cpu.cfs_quota_us cpu.cfs_period_us cpu.rt_runtime_us cpuset.cpus cpuset.mems \
      freezer.state freezer.self_freezing memory.limit_in_bytes memory.memsw.limit_in_bytes memory.soft_limit_in_bytes memory.oom_control \
      memory.swappiness memory.use_hierarchy net_cls.classid pids.max hugetlb.*.limit_in_bytes)
  done
}

rules_of_v1() {
  expect "first process" systemd "$(cat /proc/1/comm)"
  expect "cgroup2, without a controller" "$cgroups/unified" "$(awk '$3 == "cgroup2" { print $2 }' /proc/mounts)$(cat $cgroups/unified/cgroup.controllers)"
  expect "controllers" 4 "$(awk '$3 == "cgroup"' /proc/mounts | grep -cE ' [^ ]*/(memory|pids|devices|cpu,cpuacct) ')"
  until_true 20 systemctl show -p Version
}

scopes_of_v1() {
  same Slice=system.slice life runc-box.scope
  resources='{"memory":{"limit":33554432,"reservation":16777216},"cpu":{"shares":512,"quota":25500,"period":50000,"cpus":"0","mems":"0"},"pids":{"limit":77},"network":{"classID":1048577}}'
  same CPUQuotaPerSecUSec=510ms life runc-box.scope
  resources='{"memory":{"limit":33554432,"disableOOMKiller":true},"cpu":{"quota":-1},"pids":{"limit":-1}}'
  same MemoryLimit=33554432 life runc-box.scope
}

own_slices_of_v1() {
  # The first with device rules in its slice: runc's is left without.
  path=rows-in.slice:prefix:name turn=ours
  set +e
  life prefix-name.scope >$work/ours.says 2>&1
  set -e
  expect "place" "devices:/rows.slice/rows-in.slice/prefix-name.scope" "$(grep '^devices:' $work/ours.says | head -1)" || { cat $work/ours.says; return 1; }
  expect "inside" 1 "$(grep -c '^devices:/$' $work/ours.says)"
  expect "rules" 0 "$(grep -c '^devices.list:a' $work/ours.says)"
  path=:prefix:name
  same /system.slice/prefix-name.scope life prefix-name.scope
}

update_of_v1() {
  resources='{"memory":{"limit":33554432},"pids":{"limit":9}}'
  same MemoryLimit=50331648 updated
}

updated() {
  bundle
  call_detached run -d -b $work/$id $id
  local place
  place=$(place)
  call update --memory 50331648 --cpu-quota 20000 --cpu-share 2048 --pids-limit 20 $id
  unit runc-box.scope
  files "$place"
  echo '{"cpu":{"quota":30000,"period":50000},"memory":{"reservation":1048576},"pids":{"limit":-1}}' >$work/more
  call update -r $work/more $id
  unit runc-box.scope
  files "$place"
  call delete -f $id
}

reload_of_v1() {
  resources='{"memory":{"limit":33554432},"cpu":{"quota":50000,"cpus":"0"},"pids":{"limit":9},"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":254,"minor":16,"access":"r"}]}'
  same "other read 0" reloaded
}

paused() {
  bundle
  call_detached run -d -b $work/$id $id
  local place
  place=$(place)
  call pause $id
  status
  files "$place"
  systemctl show -p ActiveState -p FreezerState runc-box.scope
  call update --pids-limit 30 $id
  files "$place"
  call resume $id
  status
  call pause $id
  call delete -f $id
  gone runc-box.scope "$place"
}

out_of_memory() {
  bundle
  call run -b $work/$id $id
  gone runc-box.scope
}

out_of_memory_of_v1() {
  resources='{"memory":{"limit":16777216}}'
  command='exec tail /dev/zero'
  same "run: 137" out_of_memory
}

driver_of_v1() {
  $bin/dockerd-rs --data-root /var/tmp/data --exec-root /run/e --pidfile /run/d.pid -H unix:///run/d.sock \
    --exec-opt native.cgroupdriver=systemd >/var/tmp/dockerd.log 2>&1 &
  until_true 30 docker version || { tail -20 /var/tmp/dockerd.log; return 1; }
  docker load -q -i /vm/busybox.tar
  expect driver "systemd 1" "$(docker info -f '{{.CgroupDriver}} {{.CgroupVersion}}')"
  local scope
  docker run -d --name limits --network none -m 64m --cpus 0.5 --pids-limit 50 busybox sleep 1000
  scope=docker-$(docker inspect -f '{{.Id}}' limits).scope
  expect properties "CPUQuotaPerSecUSec=500ms MemoryLimit=67108864 Slice=system.slice TasksMax=50" \
    "$(systemctl show -p Slice -p MemoryLimit -p CPUQuotaPerSecUSec -p TasksMax "$scope" | sort | paste -sd ' ' -)"
  expect memory 67108864 "$(cat "$cgroups/memory/system.slice/$scope/memory.limit_in_bytes")"
  expect inside 67108864 "$(docker exec limits cat /sys/fs/cgroup/memory/memory.limit_in_bytes)"
  docker update --pids-limit 60 limits
  expect "updated" TasksMax=60 "$(systemctl show -p TasksMax "$scope")"
  docker pause limits
  docker unpause limits
  docker rm -f limits
  expect "after" "LoadState=not-found" "$(systemctl show -p LoadState "$scope")"
  expect "directories" "" "$(find $cgroups -name "$scope")"
}

row "systemd is the first process, with a hierarchy for each controller" rules_of_v1
row "a scope's life is that of runc's: properties, places, files, end" scopes_of_v1
row "slices of one's own" own_slices_of_v1
row "update changes properties and files" update_of_v1
row "systemd reloads, and limits and device rules stay" reload_of_v1
row "pause and resume" pause_and_resume
row "out of memory" out_of_memory_of_v1
row "systemctl stop ends the container" stop_of_the_unit_ends_the_container
row "dockerd-rs --exec-opt native.cgroupdriver=systemd" driver_of_v1
row "nothing is left" nothing_is_left
echo "$rows rows, $failed failed"
