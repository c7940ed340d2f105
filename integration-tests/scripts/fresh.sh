#!/usr/bin/env bash
# make run and make test in a bare Debian 12 tree that holds only this host's Rust toolchain and a
# git clone of this repository. Needs mmdebstrap (or debootstrap).
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
tree=${FRESH_DIR:-/var/tmp/docker-rs-fresh}
command -v mmdebstrap >/dev/null || apt-get install -y -qq --no-install-recommends mmdebstrap >/dev/null || {
  echo "test-fresh: mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 1; }
toolchain=$(rustc --print sysroot)
rm -rf --one-file-system "$tree"
mirror=$(apt-get indextargets --format '$(REPO_URI)|$(LABEL)' 'Created-By: Packages' | awk -F'|' '$2=="Debian" {print $1; exit}')
mmdebstrap --quiet --variant=apt --include=gcc,libc6-dev,make,ca-certificates,iproute2 bookworm "$tree" ${mirror:+"$mirror"}
mkdir -p "$tree/rust" "$tree/src"
git clone -q "$top" "$tree/src/stack"
cp /etc/resolv.conf "$tree/etc/resolv.conf"
unshare --mount --pid --ipc --fork --kill-child --propagation private bash -ec '
  tree=$1 toolchain=$2
  mount --bind "$tree" "$tree"
  mount --rbind /dev "$tree/dev"; mount --rbind /sys "$tree/sys"; mount -t proc proc "$tree/proc"
  mount -t tmpfs tmpfs "$tree/run"
  mount --bind "$toolchain" "$tree/rust"
  [ -d "$HOME/.cargo/registry" ] && { mkdir -p "$tree/root/.cargo/registry"; mount --bind "$HOME/.cargo/registry" "$tree/root/.cargo/registry"; }
  exec chroot "$tree" env -i HOME=/root TERM=dumb LANG=C.UTF-8 PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    bash -ec "cd /src/stack; make run; make test"
' bash "$tree" "$toolchain"
rm -rf --one-file-system "$tree"
