# What a container shows of itself, in sections that begin with `@@ NAME`. Plain busybox; nothing is
# judged here. The shell is the container's process, so what it says of itself holds for any command.
p=$$
say() { echo "@@ $1"; }
say status; cat /proc/$p/status
say stat; cat /proc/$p/stat
say environ; tr '\0' '\n' </proc/$p/environ
say cwd; readlink /proc/$p/cwd
say root; readlink /proc/$p/root
say limits; cat /proc/$p/limits
say process
for f in oom_score_adj coredump_filter personality attr/current setgroups uid_map gid_map; do
  echo "$f|$(cat /proc/$p/$f 2>&1)"
done
say fds; ls -l /proc/$p/fd
say tty; tty; stty -a 2>&1
say mountinfo; cat /proc/$p/mountinfo
say cgroup; cat /proc/$p/cgroup
say names; hostname; cat /proc/sys/kernel/domainname
for f in hosts hostname resolv.conf; do say "file /etc/$f"; cat "/etc/$f"; done
say nodes
find /dev -exec stat -c '%n|%F|%t:%T|%a|%u:%g|%N' {} +
say tree
find / -xdev -maxdepth 3 ! -path '/bin/*' ! -path '/tmp/probe*' -exec stat -c '%n|%F||%a|%u:%g|%N' {} + 2>/dev/null
find /sys/fs/cgroup -maxdepth 1 -exec stat -c '%n|%F||%a|%u:%g|%N' {} +
stat -c '%n|%F||%a|%u:%g|%N' /dev/shm /dev/mqueue /dev/pts
say sysctl
for f in kernel/domainname kernel/hostname kernel/msgmax kernel/msgmnb kernel/msgmni kernel/sem \
  kernel/shmall kernel/shmmax kernel/shmmni kernel/shm_rmid_forced fs/mqueue/msg_max \
  fs/mqueue/msgsize_max fs/mqueue/queues_max net/core/somaxconn net/ipv4/ip_forward \
  net/ipv4/ip_unprivileged_port_start net/ipv4/ping_group_range net/ipv4/conf/all/forwarding \
  net/ipv4/conf/default/rp_filter net/ipv4/conf/eth0/rp_filter net/ipv4/conf/eth0/arp_notify \
  net/ipv4/conf/eth0/accept_local net/ipv4/conf/eth0/route_localnet \
  net/ipv6/conf/all/disable_ipv6 net/ipv6/conf/default/disable_ipv6 net/ipv6/conf/lo/disable_ipv6 \
  net/ipv6/conf/eth0/disable_ipv6 net/ipv6/conf/all/forwarding net/ipv6/conf/eth0/accept_ra; do
  echo "$f|$(cat /proc/sys/$f 2>&1)"
done
say links; ip -o link
say addresses; ip -o addr
say routes; ip route; ip -6 route
say masked
for f in /proc/asound /proc/acpi /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats \
  /proc/timer_list /proc/timer_stats /proc/sched_debug /proc/scsi /sys/firmware \
  /sys/devices/virtual/powercap /sys/devices/system/cpu/cpu0/thermal_throttle; do
  if [ -d $f ]; then
    [ "$(ls -A $f 2>&1)" ] && shown='full directory' || shown='empty directory'
  elif [ -c $f ]; then
    shown="device $(stat -c %t:%T $f)"
  elif [ -e $f ]; then
    shown=file
  else
    shown=absent
  fi
  echo "$f|$shown"
done
say written
for f in /proc/sys/kernel/domainname /proc/sys/net/ipv4/ip_forward /proc/sysrq-trigger \
  /proc/irq/default_smp_affinity /proc/self/oom_score_adj /sys/class/net/lo/mtu \
  /sys/fs/cgroup/memory/cgroup.procs /sys/fs/cgroup/cgroup.procs /sys/fs/cgroup/probe \
  /etc/hosts /etc/hostname /etc/resolv.conf /probe /tmp/probe /dev/probe /dev/shm/probe /dev/mqueue/probe; do
  case $f in *probe) ;; /proc/* | /sys/*) [ -e $f ] || continue ;; esac
  e=$({ : >>$f; } 2>&1) && e=written
  echo "$f|${e##*: }"
done
say devices
for d in c:1:1 c:1:3 c:1:5 c:1:7 c:1:8 c:1:9 c:1:11 c:5:0 c:5:1 c:5:2 c:10:200 c:10:229 c:10:235 c:136:0 c:10:1 b:7:0 b:43:0; do
  kind=${d%%:*} minor=${d##*:}
  major=${d#*:}
  major=${major%:*}
  n=/tmp/probe-$kind-$major-$minor
  m=$(mknod -m 600 $n $kind $major $minor 2>&1) && m=made
  r=$({ : <$n; } 2>&1) && r=opened
  w=
  [ $kind = b ] || { w=$({ : >>$n; } 2>&1) && w=opened; }
  rm -f $n
  echo "$d|${m##*: }|${r##*: }|${w##*: }"
done
say end
exec sleep 100000
