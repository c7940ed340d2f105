#!/usr/bin/env bash
# make run and make test in a bare Debian 12 tree that holds only what README asks for (gcc, make),
# this host's Rust toolchain and a git clone of this repository. Needs root and mmdebstrap.
#   FRESH_KEEP=1   keeps the tree, and with it what was built, for the next attempt
#   FRESH_CRATES=0 does not show the tree this host's downloaded crates: cargo fetches them itself
#   FRESH_MAKE='run test'  the targets; FRESH_AT=/src/stack  where the clone stands in the tree
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
tree=${FRESH_DIR:-/var/tmp/docker-rs-fresh}
at=${FRESH_AT:-/src/stack}
command -v mmdebstrap >/dev/null || {
  echo "test-fresh: mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 1; }
toolchain=$(cd "$top" && rustc --print sysroot)
[ -n "${FRESH_KEEP:-}" ] || rm -rf --one-file-system "$tree"
if [ ! -e "$tree$at" ]; then
  mirror=$(apt-get indextargets --format '$(REPO_URI)|$(LABEL)' 'Created-By: Packages' | awk -F'|' '$2=="Debian" {print $1; exit}')
  mmdebstrap --quiet --variant=minbase --include=gcc,libc6-dev,make,ca-certificates bookworm "$tree" ${mirror:+"$mirror"}
  mkdir -p "$tree/rust" "$tree/old"
  git clone -q "$top" "$tree$at"
else
  git -C "$tree$at" fetch -q "$top" HEAD
  git -C "$tree$at" reset -q --hard FETCH_HEAD
fi
# This host's way to the network.
for file in /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
  [ ! -e "$file" ] || cp "$file" "$tree$file"
done
settings=()
while IFS= read -r setting; do settings+=("$setting"); done < <(env | grep -E '^(https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY|CARGO_(HTTP|NET|REGISTR|SOURCE|BUILD)[A-Z_]*)=')
code=0
FRESH_CARGO=${CARGO_HOME:-$HOME/.cargo} unshare --mount --pid --ipc --fork --kill-child --propagation private bash -ec '
  tree=$1 toolchain=$2 targets=$3 at=$4 cargo=$tree/root/.cargo
  shift 4
  mount --bind "$tree" "$tree"
  mount --rbind /dev "$tree/dev"; mount --rbind /sys "$tree/sys"; mount -t proc proc "$tree/proc"
  mount -t tmpfs tmpfs "$tree/run"
  mount --bind -o ro "$toolchain" "$tree/rust"
  mkdir -p "$cargo/registry"
  for file in config config.toml; do [ ! -e "$FRESH_CARGO/$file" ] || cp "$FRESH_CARGO/$file" "$cargo/"; done
  [ "${FRESH_CRATES:-1}" = 0 ] || [ ! -d "$FRESH_CARGO/registry" ] || mount --bind "$FRESH_CARGO/registry" "$cargo/registry"
  # Not chroot: in one the kernel makes no user namespaces.
  cd "$tree"
  pivot_root . old
  cd "$at"
  umount -l /old
  exec env -i HOME=/root TERM=dumb LANG=C.UTF-8 PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@" \
    bash -ec "for target in $targets; do echo \"== make \$target\"; make \$target; done"
' bash "$tree" "$toolchain" "${FRESH_MAKE:-run test}" "$at" "${settings[@]}" || code=$?
[ -n "${FRESH_KEEP:-}" ] || rm -rf --one-file-system "$tree"
[ $code = 0 ] && echo "test-fresh: passed"
exit $code
