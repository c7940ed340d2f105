#!/usr/bin/env bash
# make fetch, then with the network cut make run and make test, in a bare Debian 12 tree that holds only
# what README asks for (gcc, make), this host's Rust toolchain and a git clone of this repository. Needs
# root and mmdebstrap.
#   FRESH_KEEP=1   keeps the tree, and with it what was built, for the next attempt
#   FRESH_CRATES=0 gives the tree none of this host's downloaded crates: cargo fetches them itself
#   FRESH_USER=1   as a user with sudo instead of root; afterwards nothing in the clone may be root's
#   FRESH_MAKE='fetch run test'  the targets; FRESH_AT=/src/stack  where the clone stands in the tree
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
  mmdebstrap --quiet --variant=minbase --include=gcc,libc6-dev,make,ca-certificates${FRESH_USER:+,sudo} bookworm "$tree" ${mirror:+"$mirror"}
  mkdir -p "$tree/rust" "$tree/old"
  git clone -q "$top" "$tree$at"
else
  git -c safe.directory=* -C "$tree$at" fetch -q "$top" HEAD
  git -c safe.directory=* -C "$tree$at" reset -q --hard FETCH_HEAD
fi
# This host's way to the network.
for file in /etc/resolv.conf /etc/ssl/certs/ca-certificates.crt; do
  [ ! -e "$file" ] || cp "$file" "$tree$file"
done
[ -e "$tree/etc/hosts" ] || echo '127.0.0.1 localhost' >"$tree/etc/hosts" # as the installer does
settings=()
while IFS= read -r setting; do settings+=("$setting"); done < <(env | grep -E '^(https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY|CARGO_(HTTP|NET|REGISTR|SOURCE|BUILD)[A-Z_]*)=')
home=/root
if [ -n "${FRESH_USER:-}" ]; then
  home=/home/fresh
  chroot "$tree" sh -ec 'id fresh >/dev/null 2>&1 || useradd -m fresh; echo "fresh ALL=(ALL) NOPASSWD: ALL" >/etc/sudoers.d/fresh'
fi
cargo=${CARGO_HOME:-$HOME/.cargo}
mkdir -p "$tree$home/.cargo"
for file in config config.toml; do [ ! -e "$cargo/$file" ] || cp "$cargo/$file" "$tree$home/.cargo/"; done
if [ "${FRESH_CRATES:-1}" != 0 ] && [ -d "$cargo/registry" ] && [ ! -e "$tree$home/.cargo/registry" ]; then
  cp -a "$cargo/registry" "$tree$home/.cargo/"
fi
[ -z "${FRESH_USER:-}" ] || chroot "$tree" chown -R fresh: "$at" "$home"
code=0
unshare --mount --pid --ipc --fork --kill-child --propagation private bash -ec '
  tree=$1 toolchain=$2 targets=$3 at=$4 home=$5
  shift 5
  mount --bind "$tree" "$tree"
  mount --rbind /dev "$tree/dev"; mount --rbind /sys "$tree/sys"; mount -t proc proc "$tree/proc"
  mount -t tmpfs tmpfs "$tree/run"
  mount --bind -o ro "$toolchain" "$tree/rust"
  # Not chroot: in one the kernel makes no user namespaces.
  cd "$tree"
  pivot_root . old
  cd "$at"
  umount -l /old
  as=()
  [ "$home" = /root ] || as=(setpriv --reuid fresh --regid fresh --init-groups)
  in_tree() { env -i HOME="$home" TERM=dumb LANG=C.UTF-8 PATH=/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"; }
  for target in $targets; do
    if [ "$target" = fetch ]; then
      echo "== make fetch"
      in_tree "$@" "${as[@]}" make fetch
    else
      echo "== make $target, without a network"
      export -f in_tree
      export home
      unshare --net bash -ec '\''
        "$(find .cache/busybox -name busybox -type f -perm -100 | head -1)" ip link set lo up
        in_tree "$@"'\'' bash "$@" "${as[@]}" make "$target"
    fi
  done
  if [ "$home" != /root ]; then
    foreign=$(find "$at" "$home" ! -user fresh | head -5)
    [ -z "$foreign" ] || { echo "test-fresh: not the user'\''s: $foreign"; exit 1; }
  fi
' bash "$tree" "$toolchain" "${FRESH_MAKE:-fetch run test}" "$at" "$home" "${settings[@]}" || code=$?
[ -n "${FRESH_KEEP:-}" ] || rm -rf --one-file-system "$tree"
[ $code = 0 ] && echo "test-fresh: passed"
exit $code
