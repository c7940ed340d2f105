# What must hold of the profile `docker-default`: after systemd-rows.sh, in its machine. Stock dockerd and
# ours take turns at each row, and what both leave to see is the same. The profile is one for the whole
# kernel: before a turn it is taken away, so that it is loaded by the engine whose turn it is.
profiles=/sys/kernel/security/apparmor
parser=/sbin/apparmor_parser
confine= # what daemons run under

client() { timeout 120 $bin/docker-rs -H unix:///run/$turn.sock "$@"; }

# One command of the client; what it says, and its exit code where that is not 0. Whatever stays
# behind does not hold the pipe.
ask() {
  client "$@" >$work/said 2>&1 </dev/null || echo "exit $?"
  names <$work/said
}

# Without ids, how the parser was called, and what 28.5 words otherwise.
names() { sed -E -e 's/[0-9a-f]{64}/ID/g' -e 's/running `[^`]*`/running PARSER/' -e 's/failed to create task for container: //' -e 's/Container ID is/container ID is/'; }

# To be put into the background. Under $confine, where it is set, as all that it starts.
as_daemon() { # COMMAND…
  [ "$turn" = ours ] || PATH=/peers/bin:$PATH
  [ -z "$confine" ] || echo "exec $confine" >/proc/self/attr/exec
  exec "$@" </dev/null
}

up() { # FLAG…: the engine whose turn it is
  local program=$bin/dockerd-rs own=
  if [ $turn = stock ]; then
    program=/peers/bin/dockerd own="--containerd /run/stock-c.sock"
    # It would not wait as long as an emulated processor takes.
    mkdir -p /var/tmp/stock-c
    printf 'version = 2\nroot = "/var/tmp/stock-c"\nstate = "/run/stock-c"\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n[grpc]\naddress = "/run/stock-c.sock"\n' >/var/tmp/stock-c/config.toml
    as_daemon containerd --config /var/tmp/stock-c/config.toml >/var/tmp/stock-c.log 2>&1 &
    echo $! >/run/stock-c.pid
    until_true 30 grep -q 'containerd successfully booted' /var/tmp/stock-c.log || { tail -20 /var/tmp/stock-c.log; return 1; }
  fi
  as_daemon $program $own --data-root /var/tmp/$turn --exec-root /run/$turn --pidfile /run/$turn.pid -H unix:///run/$turn.sock \
    --exec-opt native.cgroupdriver=systemd --bridge none --iptables=false --ip-forward=false "$@" >/var/tmp/$turn.log 2>&1 &
  until_true 30 $bin/docker-rs -H unix:///run/$turn.sock version || { tail -20 /var/tmp/$turn.log; return 1; }
}

down() {
  local file pid
  for file in /run/$turn.pid /run/$turn-c.pid; do
    [ -e $file ] || continue
    pid=$(cat $file)
    kill "$pid" || :
    until_true 30 [ ! -e /proc/"$pid" ]
    rm -f $file
  done
}

loaded() { grep '^docker-default ' $profiles/profiles || echo "docker-default is not loaded"; }
unload() { ! grep -q "^$1 " $profiles/profiles || echo -n "$1" >$profiles/.remove; }

label() { cat "/proc/$(client inspect -f '{{.State.Pid}}' "$1")/attr/current"; }

# alike WORDS FUNCTION ARGUMENT…: says the same over both engines, and with stock these words
alike() {
  local words=$1 teller
  shift
  set +e
  for turn in stock ours; do
    unload docker-default
    : >$work/$turn.says
    teller=
    if [ -n "$shown" ]; then echo "$turn:"; tail -f $work/$turn.says & teller=$!; fi
    "$@" >$work/$turn.says 2>&1
    [ -z "$teller" ] || kill $teller
    client rm -f $(client ps -aq) >/dev/null 2>&1
  done
  set -e
  grep -qF -- "$words" $work/stock.says || { echo "stock does not say '$words':"; cat $work/stock.says; return 1; }
  diff $work/stock.says $work/ours.says || { echo "for $*"; return 1; }
}

both_engines_run() {
  for turn in stock ours; do
    unload docker-default
    up
    # At its start, and not only at a container's.
    expect "$turn has loaded" "docker-default (enforce)" "$(loaded)" || { grep -i apparmor /var/tmp/$turn.log; return 1; }
    client load -q -i /vm/busybox.tar
    expect "$turn info" name=apparmor "$(client info -f '{{index .SecurityOptions 0}}')"
  done
}

# What is said of one container's profile, and what its processes have.
profile_of() { # OPTION…
  echo "== $*"
  ask run -d --name one --network none "$@" busybox sleep 1000
  client inspect -f '{{.State.Pid}} {{.AppArmorProfile}} {{json .HostConfig.SecurityOpt}} {{.State.ExitCode}} {{.State.Error}}' one >$work/told
  sed 's/^[0-9]* //' $work/told | names
  cat "/proc/$(sed -n '1s/ .*//p' $work/told)/attr/current"
  ask exec --privileged one cat /proc/self/attr/current
  ask rm -f one
}

profiles_of() {
  profile_of
  loaded
  profile_of --privileged
  profile_of --security-opt apparmor=unconfined
  profile_of --security-opt apparmor=rows-other --security-opt apparmor:rows-denies
  profile_of --security-opt apparmor=rows-denies --security-opt apparmor=
  # It names one before it has one, and has none before it has started.
  ask create --name one --network none --security-opt apparmor=rows-denies busybox
  ask create --name two --network none busybox
  ask inspect -f '{{.AppArmorProfile}}' one two
}

containers_have_profiles() { alike "docker-default (enforce)" profiles_of; }

nobodys() {
  ask run --name one --network none --security-opt apparmor=rows-none busybox true
  ask inspect -f '{{.AppArmorProfile}} {{.State.Status}} {{.State.ExitCode}} {{.State.Error}}' one
}

a_profile_nobody_loaded() { alike rows-none nobodys; }

# What took it away meanwhile is made good, by a start and by an exec.
went() {
  ask run -d --name one --network none busybox sleep 1000
  unload docker-default
  loaded
  ask exec one cat /proc/self/attr/current
  loaded
  unload docker-default
  ask run --rm --network none --privileged busybox true
  loaded
  ask run --rm --network none busybox cat /proc/self/attr/current
  loaded
  # One that is there is not loaded again: the administrator's own counts.
  apparmor_parser -r -K $work/complains
  ask run --rm --network none busybox sh -c 'cat /proc/self/attr/current'
  loaded
}

a_profile_that_went_is_loaded() {
  echo 'profile docker-default flags=(attach_disconnected,complain) { file, }' >$work/complains
  alike "docker-default is not loaded" went
}

parsers() {
  local kind
  mv $parser $work/parser
  printf '#!/bin/sh\necho "some words"\necho "and more" >&2\nexit 3\n' >$work/failing
  chmod +x $work/failing
  for kind in missing failing; do
    echo "== $kind"
    [ $kind = missing ] || cp $work/failing $parser
    down
    unload docker-default
    up
    sed -n 's/.*\(AppArmor enabled.*\)/\1/p' /var/tmp/$turn.log | names | sed 's/["\\].*//'
    profile_of
    profile_of --security-opt apparmor=rows-denies
  done
  # One that runs, and finds no profile for what it is told to run next.
  cp $work/parser $parser
  ask run -d --name two --network none busybox sleep 1000
  unload docker-default
  cp $work/failing $parser
  ask exec two true
  cp $work/parser $parser
  ask exec two cat /proc/self/attr/current
}

parser_missing_or_failing() { alike "some words" parsers; }

containers() { # some with whom one has to do: `all`, confined as by default, sees the host's processes
  client run -d --name default --network none busybox sleep 1000
  client run -d --name named --network none --security-opt apparmor=rows-signals busybox sleep 1000
  client run -d --name open --network none --security-opt apparmor=unconfined busybox sleep 1000
  client run -d --name all --network none --pid host --cap-add ALL --security-opt seccomp=unconfined --security-opt systempaths=unconfined \
    -v $work/attempts:/attempts -v /sys/kernel/security:/sys/kernel/security busybox sleep 1000
}

pid_of() { client inspect -f '{{.State.Pid}}' "$1"; }

attempts_are_written() {
  mkdir -p $work/attempts
  cat >$work/attempts/files <<'SH'
while read -r file; do
  read=no write=no
  { true <"$file"; } 2>/dev/null && read=yes
  { true >>"$file"; } 2>/dev/null && write=yes
  echo "$file read $read write $write"
done
SH
  cat >$work/attempts/deeds <<'SH'
try() {
  name=$1
  shift
  if "$@" >/dev/null 2>/tmp/said; then echo "$name: yes"; else echo "$name: no, $(head -1 /tmp/said)"; fi
}
mkdir -p /tmp/a /tmp/b
try "mount tmpfs" mount -t tmpfs none /tmp/a
try "mount proc" mount -t proc proc /tmp/a
try "bind" mount -o bind /tmp/a /tmp/b
try "remount" mount -o remount,ro /
try "propagation" mount --make-rprivate /
try "pivot_root" pivot_root /tmp/a /tmp/a
try "umount" umount /etc/hostname
try "chroot" chroot / true
try "mknod" mknod /tmp/null c 1 3
try "link" ln /bin/busybox /tmp/link
try "own program" sh -c 'cp /bin/busybox /tmp/sh && /tmp/sh -c true'
try "unshare" unshare -n true
try "hostname" hostname elsewhere
try "date" date -s 2030-01-01
try "raw socket" ping -c 1 -W 1 127.0.0.1
try "unix socket" sh -c 'nc -lU /tmp/socket & kill $!'
try "out of it" sh -c 'echo "changeprofile unconfined" >/proc/self/attr/current'
try "out of it by exec" sh -c 'echo "exec unconfined" >/proc/self/attr/exec'
try "into another" sh -c 'echo "changeprofile rows-denies" >/proc/self/attr/current'
try "own oom_score_adj" sh -c 'echo 10 >/proc/self/oom_score_adj'
try "own comm" sh -c 'echo x >/proc/self/comm'
try "sysrq" sh -c 'echo h >/proc/sysrq-trigger'
try "core_pattern" sh -c 'cat /proc/sys/kernel/core_pattern >/tmp/p; cat /tmp/p >/proc/sys/kernel/core_pattern'
sleep 1000 &
try "signal within" kill -CONT $!
try "memory within" sh -c "true </proc/$!/mem"
try "environment within" cat /proc/$!/environ
kill $!
SH
  # Towards others: name and pid in pairs.
  cat >$work/attempts/others <<'SH'
while read -r who pid; do
  for file in mem environ auxv; do { true </proc/$pid/$file; } 2>/dev/null && echo "$file of $who: yes" || echo "$file of $who: no"; done
  for link in exe root fd/0; do readlink /proc/$pid/$link >/dev/null && echo "$link of $who: yes" || echo "$link of $who: no"; done
  for signal in 0 CONT TERM; do kill -$signal $pid 2>/dev/null && echo "$signal to $who: yes" || echo "$signal to $who: no"; done
done
SH
}

deeds() {
  containers >/dev/null
  # Of what there are many of one kind, those of one directory.
  {
    find /proc -maxdepth 3 -type f | grep -vE '^/proc/([0-9]|self|thread-self|irq|net|sys/(net|fs/mqueue|user))'
    find /proc/irq/0 /proc/sys/net/ipv4/conf/lo /sys/fs /sys/firmware /sys/kernel /sys/devices/virtual/net/lo /sys/block /sys/class/net /sys/module/loop /sys/power \
      -maxdepth 3 -type f | grep -vE '^/sys/(fs/(cgroup|bpf)|kernel/(slab|tracing|debug|iommu|irq|btf))'
  } 2>/dev/null | sort -u >$work/attempts/paths
  client exec -i all sh /attempts/files <$work/attempts/paths >$work/attempts/$turn
  # A glob of 20.10's reached too far, into what others except; 28.5's does not.
  grep -vE '^/proc/(bus|sys/kernel/(s|.h|..m))' $work/attempts/$turn
  client exec all sh /attempts/deeds 2>&1
}

docker_default_denies() {
  attempts_are_written
  echo 'profile rows-signals flags=(attach_disconnected) { file, capability, network, signal, ptrace, }' >$work/signals
  apparmor_parser -r -K $work/signals
  alike "/proc/sys/kernel/core_pattern read yes write no" deeds
  wc -l $work/ours.says
  grep -qx "/proc/sys/kernel/shmmax read yes write yes" $work/attempts/ours
  for words in "/proc/kcore read no write no" "mount tmpfs: no" "umount: yes" "signal within: yes"; do
    grep -qF -- "$words" $work/ours.says || { echo "not said: $words"; return 1; }
  done
}

# The other processes need not outlive it: a TERM comes last.
towards() {
  containers >/dev/null
  sleep 1000 &
  local own=$!
  printf 'host %s\ndefault %s\nnamed %s\nopen %s\n' $own $(pid_of default) $(pid_of named) $(pid_of open) >$work/attempts/pids
  client exec -i all sh /attempts/others <$work/attempts/pids
  kill -9 $own
}

docker_default_towards_others() { alike "CONT to host: no" towards; }

# What a process of the host that PROFILE confines can do to a container's.
send() { # PROFILE PID
  sh -c "[ '$1' = unconfined ] || echo 'exec $1' >/proc/self/attr/exec; exec kill -CONT $2" 2>/dev/null && echo "$1: yes" || echo "$1: no"
}

senders() {
  ask run -d --name one --network none busybox sleep 1000
  local pid
  pid=$(pid_of one)
  send unconfined $pid
  send rows-signals $pid
  send rows-daemon $pid
  # As newer releases of dockerd have it, for hosts that confine their runtimes.
  [ $turn = stock ] || runtimes=$(send runc $pid; send crun $pid)
  ask rm -f one
}

# The daemon's own profile may, where it has one.
confined_daemon() {
  senders
  down
  unload docker-default
  confine=rows-daemon
  up
  cat "/proc/$(cat /run/$turn.pid)/attr/current"
  senders
  ask run -d --name two --network none busybox sh -c 'trap "exit 3" TERM; sleep 1000 & wait'
  label two
  ask stop two
  ask inspect -f '{{.State.ExitCode}}' two
  down
  unload docker-default
  confine=
  up
}

signals_from_the_host() {
  {
    for name in runc crun rows-daemon; do
      echo "profile $name flags=(attach_disconnected) { capability, file, network, mount, remount, umount, pivot_root, signal, ptrace, unix, dbus, change_profile, }"
    done
  } >$work/daemons
  apparmor_parser -r -K $work/daemons
  alike "rows-daemon: yes" confined_daemon
  expect "runtimes" "runc: yes
crun: yes" "$runtimes"
}

# A profile is its processes' own: what becomes of the engine is nothing to it.
an_engine_that_is_restarted() {
  turn=ours
  client run -d --name one --network none busybox sleep 1000
  kill -9 "$(cat /run/ours.pid)"
  until_true 30 [ ! -e "/proc/$(cat /run/ours.pid)" ]
  rm /run/ours.pid
  up
  expect "the process" "docker-default (enforce)" "$(label one)"
  expect "inspect" docker-default "$(client inspect -f '{{.AppArmorProfile}}' one)"
  expect "exec" "docker-default (enforce)" "$(client exec one cat /proc/self/attr/current)"
  client rm -f one
}

nothing_of_engines_is_left() {
  for turn in stock ours; do
    expect "$turn containers" "" "$(client ps -aq)"
    down
  done
  unload docker-default
}

row "dockerd and dockerd-rs run beside each other, and load docker-default" both_engines_run
row "profiles of containers and execs" containers_have_profiles
row "a profile that nobody loaded" a_profile_nobody_loaded
row "docker-default is loaded again when it went" a_profile_that_went_is_loaded
row "what docker-default denies" docker_default_denies
row "what docker-default denies towards others" docker_default_towards_others
row "signals from the host, and from a daemon that is confined itself" signals_from_the_host
row "an engine that is restarted" an_engine_that_is_restarted
row "the parser is missing or fails" parser_missing_or_failing
row "nothing of the engines is left" nothing_of_engines_is_left
