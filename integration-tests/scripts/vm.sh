#!/usr/bin/env bash
# Boots the distribution's cloud kernel in a small virtual machine whose only cgroup file system is
# cgroup2, runs vm/rows.sh in it and answers with its result. Needs no rights; without a KVM that
# works the processor is emulated, which takes longer. Its init is busybox; or systemd, and AppArmor is
# on: then vm/systemd-rows.sh is what it runs; or busybox once more, with SELinux and vm/selinux-rows.sh.
#   VM_INIT=busybox|systemd|selinux; VM_CGROUP=2|1  systemd's hybrid of v1 with a cgroup2 that has no controllers;
#   VM_ACCEL=kvm|tcg  no trying; VM_DEADLINE=SECONDS; VM_MEMORY=MiB;
#   VM_ROWS=FUNCTION,… only those rows; VM_SHOW=1  shows what rows say while they run
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
bin=${BIN_DIR:-$top/target/stack}
vm=$top/.cache/vm
peers=$top/.cache/peers
systemd=$top/.cache/systemd
rootless=$top/.cache/rootless
here=$top/integration-tests/scripts
deadline=${VM_DEADLINE:-3600}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
kernel=$(echo "$vm"/boot/vmlinuz-*)
release=${kernel##*/vmlinuz-}
busybox=$(find "$top/.cache/busybox" -name busybox -type f -perm -100 | head -1)
libraries=$(find "$vm/lib" "$vm/usr/lib" -name 'lib*.so*' -printf '%h\n' | sort -u | paste -sd:)

root=$work/root
mkdir -p "$root"/{bin,sbin,etc,dev,proc,sys,run,tmp,var/tmp,lib/modules,stack,tests,vm,home}
install "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"; done
ln -s ../bin/busybox "$root/sbin/modprobe"
printf 'root:x:0:0:root:/root:/bin/sh\n' >"$root/etc/passwd"
printf 'root:x:0:\n' >"$root/etc/group"
cp "$here"/vm/*.sh "$root/vm/"
"$here/image.sh" "$root/vm/busybox.tar"

# add PROGRAM DIRECTORY [LIBRARY PATH]: with the libraries it is linked to, where it looks for them
add() {
  local library to
  install -s "$1" "$root/$2/" 2>/dev/null || install "$1" "$root/$2/"
  while read -r library; do
    case $library in
    "$peers"*) to=$root/usr/lib/$(uname -m)-linux-gnu/${library##*/} ;;
    "$systemd"*) to=$root${library#"$systemd"} ;;
    *) to=$root$library ;;
    esac
    [ -e "$to" ] || install -D "$library" "$to"
  done < <(LD_LIBRARY_PATH=${3:-} ldd "$1" 2>/dev/null | grep -o '/[^ ]*') # of a static one: nothing
}
for program in "$bin"/{containerd-rs,ctr-rs,dockerd-rs,docker-rs,runc-rs,containerd-shim-runc-rs-v2,guest}; do add "$program" stack; done
mkdir -p "$root/peers/bin"
for program in "$peers"/usr/{,s}bin/{runc,crun}; do
  [ ! -e "$program" ] || add "$program" peers/bin "$peers/usr/lib/$(uname -m)-linux-gnu:$peers/lib/$(uname -m)-linux-gnu"
done
for program in "$@"; do
  name=${program##*/}
  add "$program" tests
  mv "$root/tests/$name" "$root/tests/${name%-*}"
done

# systemd, a message bus and what loads profiles, in the places that their packages have for them;
# no unit but those of vm/units.
if [ "${VM_INIT:-busybox}" = systemd ]; then
  theirs=$(find "$systemd" -path "$systemd/*lib/*" -name 'lib*.so*' -printf '%h\n' | sort -u | paste -sd:)
  for program in "$systemd"{,/usr}/{lib/systemd/{systemd,systemd-executor},bin/{systemctl,dbus-daemon},sbin/apparmor_parser}; do
    [ -f "$program" ] || continue
    directory=$(dirname "${program#"$systemd"/}")
    mkdir -p "$root/$directory"
    add "$program" "$directory" "$theirs"
    case $program in */systemd) ln -s "/$directory/systemd" "$root/sbin/init" ;; esac
  done
  # Stock dockerd, and what profiles are written with.
  for program in "$peers"/usr/{,s}bin/{docker,dockerd,containerd,containerd-shim-runc-v2}; do
    [ ! -e "$program" ] || add "$program" peers/bin "$peers/usr/lib/$(uname -m)-linux-gnu:$peers/lib/$(uname -m)-linux-gnu"
  done
  mkdir -p "$root"/{usr/share,etc/systemd/system,etc/systemd/user,home/user,etc/apparmor.d}
  cp -r "$systemd"/etc/apparmor.d/{abi,abstractions,tunables} "$root/etc/apparmor.d/"
  cp -r "$systemd/etc/apparmor" "$root/etc/"
  cp -r "$systemd/usr/share/apparmor-features" "$root/usr/share/"
  cp -r "$systemd/usr/share/dbus-1" "$root/usr/share/"
  cp "$here"/vm/units/*.* "$root/etc/systemd/system/"
  cp "$here"/vm/units/user/* "$root/etc/systemd/user/"
  echo 00000000000000000000000000000001 >"$root/etc/machine-id"
  printf 'messagebus:x:100:100::/:/bin/false\n' >>"$root/etc/passwd"
  printf 'messagebus:x:100:\n' >>"$root/etc/group"
  # An ordinary user, with ids to map and a bus for a session.
  cp "$rootless/usr/share/dbus-1/session.conf" "$root/usr/share/dbus-1/"
  for program in "$rootless"/usr/bin/new{u,g}idmap; do
    add "$program" bin
    chmod u+s "$root/bin/${program##*/}"
  done
  printf 'user:x:1000:1000::/home/user:/bin/sh\n' >>"$root/etc/passwd"
  printf 'user:x:1000:\n' >>"$root/etc/group"
  for ids in sub{u,g}id; do echo user:100000:65536 >"$root/etc/$ids"; done
  more="apparmor=1 security=apparmor systemd.unified_cgroup_hierarchy=$([ "${VM_CGROUP:-2}" = 1 ] && echo 0 || echo 1) systemd.unit=rows.target systemd.show_status=0 systemd.log_target=null"
fi

# A policy of our own, which the rows load.
if [ "${VM_INIT:-busybox}" = selinux ]; then
  "$top/.cache/checkpolicy/usr/bin/checkpolicy" -M -U allow -o "$root/vm/policy" "$here/vm/selinux.conf"
  more="security=selinux file=selinux-rows"
fi

modules=$root/lib/modules/$release
mkdir -p "$modules/kernel"
cp "$vm/lib/modules/$release"/modules.* "$modules/"
(cd "$vm/lib/modules/$release/kernel" && tar -c fs/overlayfs net/{core,bridge,802,llc,netfilter,packet,ipv4,ipv6,sched} \
  drivers/block drivers/net/{veth,dummy,tun}.ko* drivers/virtio lib crypto 2>/dev/null || [ $? = 2 ]) | tar -x -C "$modules/kernel"
"$busybox" depmod -b "$root" "$release"
tar -C "$root" --owner=0 --group=0 -cf "$work/root.tar" .
truncate -s 2G "$work/disk" # on it a file system that older kernels can map owners on; a tmpfs is none

# The first stage unpacks that, as a root that can be left.
first=$work/first
mkdir -p "$first"/{bin,dev,proc,sys,new,modules}
install "$busybox" "$first/bin/busybox"
install -m 755 "$here/vm/init.sh" "$first/init"
number=0
for module in $(grep -o '^[^:]*virtio_\(pci\|blk\)\.ko[^:]*:.*' "$modules/modules.dep" | awk '{ sub(":", "", $1); for (i = NF; i > 0; i--) if (!seen[$i]++) print $i }'); do
  number=$((number + 1))
  cp "$modules/$module" "$first/modules/$(printf '%02d' $number)-${module##*/}"
done
(cd "$first" && find . | "$busybox" cpio -o -H newc 2>/dev/null) >"$work/first.cpio"

case $(uname -m) in
x86_64) machine=(qemu-system-x86_64 -machine q35) console=ttyS0 emulated=max ;;
*) machine=(qemu-system-aarch64 -machine virt) console=ttyAMA0 emulated=max ;;
esac

# boot ACCELERATOR: in the background; its console goes to $work/console
boot() {
  local processor=host
  [ "$1" = kvm ] || processor=$emulated
  : >"$work/console"
  LD_LIBRARY_PATH=$libraries exec "$vm/usr/bin/${machine[0]}" "${machine[@]:1}" -accel "$1" -cpu "$processor" \
    -L "$vm/usr/share/qemu" -L "$vm/usr/share/seabios" -nodefaults -no-user-config -display none -no-reboot -nic none \
    -m "${VM_MEMORY:-3072}" -smp 2 -serial "file:$work/console" -kernel "$kernel" -initrd "$work/first.cpio" \
    -drive "file=$work/root.tar,format=raw,if=virtio,readonly=on" -drive "file=$work/disk,format=raw,if=virtio" \
    -append "console=$console panic=-1 quiet loglevel=3 rows=${VM_ROWS:-} show=${VM_SHOW:-} ${more:-}" </dev/null
}

# started SECONDS: whether the first stage has spoken
started() {
  local end=$((SECONDS + $1))
  while ! grep -q 'cgroup2 machine' "$work/console"; do
    kill -0 "$emulator" 2>/dev/null && [ $SECONDS -lt $end ] || return 1
    sleep 0.1
  done
}

accel=${VM_ACCEL:-}
if [ -z "$accel" ]; then
  accel=tcg
  if (exec 3<>/dev/kvm) 2>/dev/null; then
    boot kvm &
    emulator=$!
    if started 10; then accel=kvm; else
      echo "vm: /dev/kvm opens, but this kernel does not start with it here; emulating the processor"
      kill -9 "$emulator" 2>/dev/null || :
      wait "$emulator" 2>/dev/null || :
    fi
  else
    echo "vm: /dev/kvm does not open; emulating the processor"
  fi
fi
if [ "$accel" = tcg ] || [ -n "${VM_ACCEL:-}" ]; then
  boot "$accel" &
  emulator=$!
  started 240 || { kill -9 "$emulator" 2>/dev/null; cat "$work/console"; echo "vm: the kernel did not start" >&2; exit 1; }
fi
echo "vm: $release under $accel"
tail -n +1 -f --pid="$emulator" "$work/console" | sed -u 's/\r$//' &
shown=$!
while kill -0 "$emulator" 2>/dev/null; do
  [ $SECONDS -lt "$deadline" ] || { kill -9 "$emulator"; echo "vm: not finished after $deadline s" >&2; exit 1; }
  sleep 0.2
done
wait "$shown" 2>/dev/null || :
grep -q '^[1-9][0-9]* rows, 0 failed' "$work/console" || { echo "vm: rows failed, or the machine ended early" >&2; exit 1; }
