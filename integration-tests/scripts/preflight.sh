#!/usr/bin/env bash
# Names what is missing, each with its fix, and fetches what needs no rights: Debian packages are
# unpacked below .cache and never installed. Usage: preflight.sh build|run|peers
set -euo pipefail
cd "$(dirname "$0")/../.."
cache=.cache
missing=()

need() { command -v "$1" >/dev/null || missing+=("$1 is missing: $2"); }

finish() {
  [ ${#missing[@]} = 0 ] && return
  printf 'preflight: %s\n' "${missing[@]}" >&2
  exit 1
}

# unpack NAME PACKAGE…: the packages below .cache/NAME, unless they are there
unpack() {
  local name=$1 package
  shift
  [ -e "$cache/$name/.complete" ] && return
  command -v apt-get >/dev/null || { missing+=("$*: this host has no apt-get; put them below $cache/$name by hand"); return; }
  echo "fetching Debian packages: $*"
  mkdir -p "$cache/$name/packages"
  (
    cd "$cache/$name/packages"
    apt-get download "$@" >/dev/null 2>&1 || {
      echo "preflight: apt-get knows no such packages; refreshing its lists" >&2
      if [ "$(id -u)" = 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
      apt-get download "$@" >/dev/null
    }
  )
  for package in "$cache/$name/packages"/*.deb; do dpkg -x "$package" "$cache/$name"; done
  touch "$cache/$name/.complete"
}

case ${1:-build} in
build)
  need cargo "install Rust from https://rustup.rs"
  need cc "install a C compiler, on Debian: apt-get install gcc libc6-dev"
  finish
  target=$(uname -m)-unknown-linux-musl
  if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    echo "fetching Rust's standard library for $target"
    rustup target add "$target" || missing+=("the target $target is missing: rustup target add $target")
  fi
  ;;
run)
  if [ "$(id -u)" != 0 ]; then need sudo "run as root, or install sudo"; fi
  unpack busybox busybox-static
  ;;
peers)
  unpack peers docker.io containerd runc crun libseccomp2 libyajl2 libsystemd0 libcap2
  unpack busybox busybox-static
  ;;
esac
finish
