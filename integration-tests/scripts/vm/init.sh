#!/bin/busybox sh
# The first process of the virtual machine, twice: out of the initramfs it unpacks the disk, a tar,
# onto a tmpfs, and there it mounts what a container stack needs, cgroup2 alone among it. Where the
# tree has an init of its own, that one does it.
b=/bin/busybox
if [ "$1" != second ]; then
  $b mount -t proc proc /proc
  $b mount -t sysfs sysfs /sys
  $b mount -t devtmpfs devtmpfs /dev
  echo "cgroup2 machine: unpacking"
  for module in /modules/*; do $b insmod "$module"; done
  tries=0
  until [ -b /dev/vda ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || { echo "no disk"; $b poweroff -f; }
    $b sleep 0.1
  done
  $b mount -t tmpfs -o mode=755,size=85% root /new
  $b tar -x -C /new -f /dev/vda
  for mount in proc sys dev; do $b mount --move /$mount /new/$mount; done
  [ ! -L /new/sbin/init ] || exec $b switch_root /new /sbin/init
  exec $b switch_root /new /bin/busybox sh /vm/init.sh second
fi
export PATH=/stack:/bin:/sbin HOME=/
mkdir -p /dev/pts /dev/shm /dev/mqueue
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /disk
mke2fs -F /dev/vdb >/dev/null && mount -t ext4 /dev/vdb /disk || echo "no file system on the second disk"
ip link set lo up
hostname vm
file=$(sed -n 's/.*file=\([^ ]*\).*/\1/p' /proc/cmdline)
sh /vm/${file:-rows}.sh </dev/null
echo
poweroff -f
