# Part of systemd-rows.sh: an ordinary user's containers, made by the user's own systemd over the bus of
# the session, and what is said where there is none, or no right to a cgroup.

# From here on all is the user's, with places of its own.
rootless() {
  work=$work/user
  mkdir -p $work
  chown user:user $work
  as=/vm/as-user.sh
  systemctl() { $as /bin/systemctl --user "$@"; }
}

user=0 # of an exec
maps='"uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"gidMappings":[{"containerID":0,"hostID":1000,"size":1}]'

# What `spec --rootless` makes, in short.
own_bundle() {
  mkdir -p $work/$id $work/rootfs/bin $work/rootfs/tmp
  [ -e $work/rootfs/bin/sh ] || { cp /bin/busybox $work/rootfs/bin/; for a in sh sleep tail cat id; do ln -s busybox $work/rootfs/bin/$a; done; }
  chown -R user:user $work/rootfs
  cat >$work/$id/config.json <<JSON
{"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"args":["/bin/sh","-c","$command"],"env":["PATH=/bin"],"cwd":"/","noNewPrivileges":true,
"capabilities":{"bounding":["CAP_KILL"],"effective":["CAP_KILL"],"permitted":["CAP_KILL"]}},
"root":{"path":"$work/rootfs"},"mounts":[{"destination":"/proc","type":"proc","source":"proc"},
{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620"]},
{"destination":"/sys","type":"none","source":"/sys","options":["rbind","nosuid","noexec","nodev","ro"]}],
"annotations":$annotations,
"linux":{"cgroupsPath":"$path","resources":$resources,$maps,"maskedPaths":["/proc/kcore"],
"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"cgroup"},{"type":"user"}]}}
JSON
}

users_manager_runs() {
  command systemctl start user@1000.service
  rootless
  until_true 20 systemctl show -p Version
  expect "bus" "socket 1000" "$([ -S /run/user/1000/bus ] && echo socket) $(stat -c %u /run/user/1000/bus)"
  expect "its cgroup" /user.slice/user-1000.slice/user@1000.service "$(systemctl show -p ControlGroup --value)"
  expect "delegated" "cpu memory pids" "$(cat "$cgroups/user.slice/user-1000.slice/user@1000.service/cgroup.controllers")"
}

own_life() {
  own_bundle
  call_detached create -b $work/$id $id
  [ -e "$work/state-$turn/$id" ] || { gone "$1" /nowhere; return; }
  local place
  place=$(place)
  echo "$place" "$(status)" "$(stat -c %u "$cgroups$place")"
  unit "$1"
  files "$place"
  call start $id
  call exec -u $user $id sh -c 'id; cat /proc/self/uid_map'
  wc -l <"$cgroups$place/cgroup.procs"
  runtime "$turn" ps $id | wc -l
  call update --memory 50331648 --memory-swap 67108864 --cpu-quota 20000 --pids-limit 20 $id
  unit "$1"
  files "$place"
  call pause $id
  status
  systemctl show -p FreezerState "$1"
  call resume $id
  call kill $id TERM
  call kill $id KILL
  until_true 20 [ ! -e "$cgroups$place" ]
  status
  call delete $id
  call state $id
  gone "$1" "$place"
}

users_scopes_equal_runcs() {
  rootless
  same /user@1000.service/user.slice/runc-box.scope own_life runc-box.scope
  resources='{"memory":{"limit":33554432,"swap":67108864,"reservation":16777216},"cpu":{"shares":512,"quota":25500,"period":50000},"pids":{"limit":77}}'
  path=rows-in.slice:prefix:name
  same /rows.slice/rows-in.slice/prefix-name.scope own_life prefix-name.scope
  # An exec of ours is under the same limits, as newer runc has it: systemd puts it there. This one leaves it
  # in the cgroup of its caller.
  turn=ours
  own_bundle
  call_detached run -d -b $work/$id $id
  expect "cgroup of an exec" 0::/ "$(call exec $id cat /proc/self/cgroup)"
  call delete -f $id
}

# What each has to say beside newuidmap is its own.
not_mapped() {
  own_bundle
  call_detached run -d -b $work/$id $id | grep -oE 'newuidmap: uid range .* not allowed|^run: .*'
  [ ! -e "$work/state-$turn/$id" ] || echo "$id is still there"
  gone runc-box.scope /user.slice/user-1000.slice/user@1000.service/user.slice/runc-box.scope
}

more_ids() {
  maps='"uidMappings":[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":100000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":100000,"size":65536}]'
  rootless
  user=5
  same "uid=5 gid=0" own_life runc-box.scope
  maps='"uidMappings":[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":200000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":1000,"size":1}]'
  same "newuidmap: uid range [1-65537) -> [200000-265536) not allowed" not_mapped
}

own_out_of_memory() {
  own_bundle
  call run -b $work/$id $id
  gone runc-box.scope /user.slice/user-1000.slice/user@1000.service/user.slice/runc-box.scope
}

own_stopped() {
  own_bundle
  call_detached run -d -b $work/$id $id
  local place
  place=$(place)
  systemctl stop runc-box.scope
  status
  gone runc-box.scope "$place"
  call delete $id
}

users_containers_end() {
  rootless
  resources='{"memory":{"limit":16777216,"swap":16777216}}'
  command='exec tail /dev/zero'
  same "run: 137" own_out_of_memory
  command="trap 'exit 3' TERM; sleep 1000 & wait"
  same stopped own_stopped
}

shortened='s/^time="[^"]*" //;s/\(cgroup-v2.md)\|for procHooks process\):.*/\1/'

# What the user's systemd has not been given it cannot give; which file that shows in is told differently.
not_delegated() {
  own_bundle
  call_detached --log $work/log create -b $work/$id $id | sed "$shortened"
  sed "$shortened" $work/log
  [ ! -e "$work/state-$turn/$id" ] || echo "$id is still there"
  gone runc-box.scope /user.slice/user-1000.slice/user@1000.service/user.slice/runc-box.scope
}

controllers_that_are_not_delegated() {
  rootless
  resources='{"cpu":{"cpus":"0"}}'
  same "error setting cgroup config" not_delegated
  resources='{"unified":{"io.weight":"default 50"}}'
  same "error setting cgroup config" not_delegated
}

# Where it looked for one is each runtime's own.
without_bus() {
  own_bundle
  call_detached --log $work/log create -b $work/$id $id | sed "$shortened"
  sed "$shortened" $work/log
  [ ! -e "$work/state-$turn/$id" ] || echo "$id is still there"
}

made='s/^time="[^"]*" //;s/create cgroup /mkdir /'
cut='s/\(level=error\) .*/\1/;s/failed due to error: .*/failed/'

# Without systemd's help, in a cgroup where the user has no rights.
without_rights() {
  own_bundle
  call_detached --log $work/log run -d -b $work/$id $id | sed "$made"
  sed "$made" $work/log
  if [ -e "$work/state-$turn/$id" ]; then
    place
    call exec $id cat /proc/self/cgroup
    # Neither can.
    call pause $id | sed "$cut"
    call update --pids-limit 5 $id | sed "$cut"
    call kill $id KILL
    call delete -f $id
  fi
  call_detached --rootless false run -d -b $work/$id $id | sed "$made"
  [ ! -e "$work/state-$turn/$id" ] || echo "$id is still there"
}

nobody_to_ask() {
  rootless
  export XDG_RUNTIME_DIR=/run/nowhere
  same "failed to connect to dbus (hint:" without_bus
  export XDG_RUNTIME_DIR=/run/user/1000 DBUS_SESSION_BUS_ADDRESS=unix:path=/run/nowhere
  same "failed to connect to dbus (hint:" without_bus
  unset DBUS_SESSION_BUS_ADDRESS
  driver=
  same "0::/" without_rights
  resources='{"pids":{"limit":5}}'
  same "rootless needs no limits" without_rights
  resources='{}' path=/rows/box
  same "mkdir /sys/fs/cgroup/rows: permission denied" without_rights
}

nothing_is_left_of_the_users() {
  rootless
  expect "units" "" "$(systemctl list-units --all --plain --no-legend 'runc-*' 'prefix-*')"
  expect "cgroups" "" "$(find $cgroups -name 'runc-*' -o -name 'prefix-*')"
  expect "containers" "" "$(ls $work/state-runc $work/state-ours | grep -v :)"
  command systemctl stop user@1000.service
  expect "its cgroup" "" "$(find $cgroups/user.slice -name 'user@*')"
}

row "an ordinary user's systemd runs, with a bus for the session" users_manager_runs
row "rootless: a scope's life is that of runc's" users_scopes_equal_runcs
row "rootless: ids of /etc/subuid" more_ids
row "rootless: out of memory, and systemctl --user stop" users_containers_end
row "rootless: limits whose controllers the user has not" controllers_that_are_not_delegated
row "rootless: without a bus, and without a cgroup" nobody_to_ask
row "rootless: nothing is left" nothing_is_left_of_the_users
