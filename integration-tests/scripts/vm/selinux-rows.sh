#!/bin/busybox sh
# What must hold where SELinux decides, by the policy of selinux.conf: labels of processes, keyrings and
# mounts, what they forbid, and what is said of a label that cannot be. By runc and then by runc-rs.
. /vm/row.sh
. /vm/pair.sh

boxed=system_u:system_r:container_t:s0:c1,c2
other=system_u:system_r:other_t:s0:c3,c4
barred=system_u:system_r:barred_t:s0
nowhere=system_u:system_r:nowhere_t:s0
content=system_u:object_r:container_file_t:s0:c1,c2

label=$boxed # process.selinuxLabel
mounted=     # linux.mountLabel
process=     # further members of process
mounts=      # further mounts
hooks=
command='sleep 1000'

bundle() {
  mkdir -p $work/$id
  cat >$work/$id/config.json <<JSON
{"ociVersion":"1.0.2","process":{"user":{"uid":0,"gid":0},"args":["/bin/sh","-c","$command"],"env":["PATH=/bin"],"cwd":"/",$process"selinuxLabel":"$label"},
"root":{"path":"$work/rootfs"},"mounts":[$mounts{"destination":"/proc","type":"proc","source":"proc"}],
"hooks":{$hooks},
"linux":{"mountLabel":"$mounted","maskedPaths":["/proc/kcore","/proc/bus","/sys/firmware"],
"namespaces":[{"type":"pid"},{"type":"mount"},{"type":"ipc"},{"type":"uts"},{"type":"network"},{"type":"cgroup"}]}}
JSON
}

# labelled LABEL FILE: a file that is born with it. Not busybox's, but the shell's own process makes it.
labelled() { (printf %s "$1" >/proc/self/attr/fscreate && echo "words of ${2##*/}" >"$2"); }

loaded() {
  mount -t securityfs securityfs /sys/kernel/security
  mount -t selinuxfs selinuxfs /sys/fs/selinux
  # In one write.
  dd if=/vm/policy of=/sys/fs/selinux/load bs=1M count=1 2>/dev/null
  echo 1 >/sys/fs/selinux/enforce
  expect "SELinux" selinux "$(tr , '\n' </sys/kernel/security/lsm | grep -x selinux)"
  expect "enforcing" 1 "$(cat /sys/fs/selinux/enforce)"
  expect "the host" system_u:system_r:kernel_t:s0-s0:c0.c7 "$(tr -d '\0' </proc/self/attr/current)"
  expect "its files" "$work system_u:object_r:base_t:s0" "$($bin/guest label $work)"
  mkdir -p $work/rootfs/bin $work/rootfs/tmp $work/rootfs/copied $work/outside
  cp /bin/busybox $bin/guest $work/rootfs/bin/
  for applet in sh sleep cat tr sed awk; do ln -s busybox $work/rootfs/bin/$applet; done
  labelled system_u:object_r:secret_t:s0 $work/rootfs/secret
  labelled system_u:object_r:secret_t:s0 $work/outside/secret
  labelled system_u:object_r:container_file_t:s0 $work/outside/shared
  labelled system_u:object_r:container_file_t:s0:c1,c2 $work/outside/own
  labelled system_u:object_r:container_file_t:s0:c3,c4 $work/outside/others
  echo below >$work/rootfs/copied/file
  expect "a label of its own" "$work/outside/own $content" "$($bin/guest label $work/outside/own)"
}

attributes() { # PID: all labels that a process has
  local name
  for name in current prev exec fscreate keycreate sockcreate; do
    echo "$name $(tr -d '\0' <"/proc/$1/attr/$name")"
  done
}

hook() { # FILE: one that adds its label there
  echo '{"path":"/bin/sh","args":["sh","-c","read label </proc/self/attr/current; echo $label >>'$1'"]}'
}

processes() {
  bundle
  call_detached create -b $work/$id $id
  attributes "$(pid)" | grep -E '^(current|prev|sockcreate)'
  call start $id
  until_true 20 grep -qx sleep "/proc/$(pid)/comm"
  attributes "$(pid)"
  call exec $id sh -c 'for name in current prev exec fscreate keycreate sockcreate; do echo $name $(cat /proc/self/attr/$name); done; guest label @session'
  call exec --process-label $other $id sh -c 'cat /proc/self/attr/current; guest label @session'
  cat $work/rootfs/hooks
  rm $work/rootfs/hooks
  echo '{"user":{"uid":7,"gid":7},"args":["/bin/guest","label","/proc/self/attr","@session"],"cwd":"/","selinuxLabel":"'$other'"}' >$work/process
  call exec -p $work/process $id
  call_detached exec -d --process-label $other --pid-file $work/pid $id sleep 999
  attributes "$(cat $work/pid)" | grep -E '^(current|sockcreate)'
  call kill $id KILL
  call delete -f $id
}

labels_of_processes() {
  # A hook in the container has the container's label, and what the runtime runs its own.
  hooks="\"createContainer\":[$(hook $work/rootfs/hooks)],\"startContainer\":[$(hook /hooks)]"
  same "current $boxed" processes
  grep -q "^@session $boxed" $work/ours.says
  # Without one the host's stays.
  label=
  same "current system_u:system_r:kernel_t:s0-s0:c0.c7" processes
}

# Mount points with what is mounted, and with which context.
shown='while read -r a b c d point rest; do echo \"$point ${rest#* - }\"; done </proc/self/mountinfo | sed -n \"s/^\\([^ ]* [^ ]*\\) .*\\(context=\\\"[^\\\"]*\\\"\\).*/\\1 \\2/p;t;s/^\\([^ ]* [^ ]*\\) .*/\\1/p\"'
looked='guest label / /tmp /proc /proc/kcore /proc/bus /dev /dev/null /dev/ptmx /dev/pts /dev/pts/ptmx /dev/shm /dev/mqueue /sys /sys/firmware /sys/fs/cgroup /copied /copied/file /late /bound /bound/own @session; for d in /dev /dev/shm /dev/mqueue /copied /tmp; do echo x >$d/made; guest label $d/made; done'
whole='{"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755","size=65536k"]},
{"destination":"/dev/pts","type":"devpts","source":"devpts","options":["newinstance","ptmxmode=0666","mode=0620"]},
{"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},
{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]},
{"destination":"/sys","type":"sysfs","source":"sysfs","options":["ro"]},
{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro"]},
{"destination":"/copied","type":"tmpfs","source":"tmpfs","options":["tmpcopyup"]},
{"destination":"/late","type":"tmpfs","source":"tmpfs","options":["ro"]},
{"destination":"/bound","type":"bind","source":"/var/tmp/rows/outside","options":["bind","ro"]},'

once() {
  bundle
  call run -b $work/$id $id
}

labels_of_mounts() {
  mounts=$whole
  command="$shown; $looked"
  mounted=$content
  same "/dev/shm tmpfs context=\"$content\"" once
  grep -qx "/dev/mqueue $content" $work/ours.says
  mounted=
  same "/dev/shm system_u:object_r:base_t:s0" once
}


# What the policy forbids: another type, other categories; in the image and in a volume.
attempt='exec 2>&1; for f in /secret /bound/secret /bound/shared /bound/own /bound/others; do cat $f; echo $f $?; (: >>$f); echo write $?; done'

tried() {
  bundle
  call run -b $work/$id $id
}

entered() {
  command='sleep 1000'
  bundle
  call_detached run -d -b $work/$id $id
  call exec $id sh -c "$attempt"
  call exec --process-label $other $id sh -c "$attempt"
  call kill $id KILL
  call delete -f $id
}

policy_forbids() {
  mounts='{"destination":"/bound","type":"bind","source":"/var/tmp/rows/outside","options":["bind"]},'
  command=$attempt
  same "cat: can't open '/secret': Permission denied" tried
  expect "read and written" "/bound/shared /bound/own" "$(sed -n 's/^\(.*\) 0$/\1/p' $work/ours.says | grep / | paste -sd ' ' -)"
  expect "forbidden" 6 "$(grep -c 'Permission denied$' $work/ours.says)"
  same "/bound/others 0" entered
  # It was SELinux, then.
  label=
  same "/bound/secret 0" tried
  label=$boxed
  echo 0 >/sys/fs/selinux/enforce
  same "/bound/secret 0" tried
  echo 1 >/sys/fs/selinux/enforce
  expect "still enforcing" 1 "$(cat /sys/fs/selinux/enforce)"
  # And of the container's own files, those that the mount's label puts out of reach.
  mounts='{"destination":"/tmp","type":"tmpfs","source":"tmpfs"},'
  mounted=system_u:object_r:secret_t:s0
  command='exec 2>&1; echo x >/tmp/file; echo $?; cat /tmp/file; echo $?'
  same "can't open '/tmp/file': Permission denied" tried
}

# How a call is told is each runtime's own affair.
told='s/^time="[^"]*" //;s/: \(mount\|setxattr\) .*: invalid/: invalid/'

refused() { # ARGUMENT…: of create
  bundle
  call_detached --log $work/log create "$@" -b $work/$id $id | sed "$told"
  sed "$told" $work/log
  [ ! -e "$work/state-$turn/$id" ] || echo "$id is still there"
}

at_the_end() {
  bundle
  call run -b $work/$id $id
  [ ! -e "$work/state-$turn/$id" ] || echo "$id is still there"
}

exec_refused() { # ARGUMENT…: of run
  bundle
  call_detached run -d "$@" -b $work/$id $id
  for name in $nowhere words ''; do call exec --process-label "$name" $id cat /proc/self/attr/current; done
  # What the program makes of it, runc's process says for itself.
  call exec --process-label $barred $id cat /proc/self/attr/current | grep -o 'exec /bin/cat: permission denied'
  call delete -f $id
}

labels_that_cannot_be() {
  for label in $nowhere words system_u:system_r:container_t:s0:c1,c9; do
    same "write /proc/self/attr/keycreate: invalid argument" refused
    same "exec: invalid argument" refused --no-new-keyring
  done
  label=$barred
  same "permission denied" at_the_end
  label=$boxed
  same "exec /bin/cat: permission denied" exec_refused
  same "exec: invalid argument" exec_refused --no-new-keyring
  process='"noNewPrivileges":true,' command='cat /proc/self/attr/current'
  same "$boxed" at_the_end
  label=$other
  same "operation not permitted" at_the_end
  process= label=$boxed
  # Where its files are another's, SELinux is not there.
  mount -o remount,bind,ro /sys/fs/selinux
  same "selinux is disabled or not supported" refused
  mount -o remount,bind,rw /sys/fs/selinux
  mounted=system_u:object_r:nowhere_t:s0
  for mounts in '{"destination":"/tmp","type":"tmpfs","source":"tmpfs"},' '{"destination":"/tmp","type":"tmpfs","source":"tmpfs","options":["size=1m"]},' \
    '{"destination":"/dev/mqueue","type":"mqueue","source":"mqueue"},' ''; do
    same "invalid argument" refused
  done
}

# Version 1 of cgroups has a directory of hierarchies, a tmpfs.
cgroup_v1_is_labelled() {
  umount $cgroups
  mount -t tmpfs tmpfs $cgroups
  for controller in devices freezer; do
    mkdir $cgroups/$controller
    mount -t cgroup -o $controller cgroup $cgroups/$controller
  done
  mounts='{"destination":"/sys","type":"sysfs","source":"sysfs","options":["ro"]},{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro"]},'
  command="$shown; guest label /sys/fs/cgroup /sys/fs/cgroup/devices"
  mounted=$content
  same "/sys/fs/cgroup tmpfs context=\"$content\"" once
  for controller in devices freezer; do umount $cgroups/$controller; done
  umount $cgroups
  mount -t cgroup2 cgroup2 $cgroups
}

row "SELinux is on, enforces, and has the policy" loaded
row "labels of processes and their keyrings" labels_of_processes
row "labels of mounts" labels_of_mounts
row "what the policy forbids a container, and what its mounts" policy_forbids
row "labels that the policy does not know or does not let be" labels_that_cannot_be
row "version 1 of cgroups is labelled too" cgroup_v1_is_labelled
echo "$rows rows, $failed failed"
