#!/usr/bin/env bash
# Names what is missing, each with its fix, and fetches what needs no rights: Debian packages are
# unpacked below .cache and never installed. Usage: preflight.sh build|run|peers|peers-new|swap|vm|bench
set -euo pipefail
self=$(realpath "$0")
cd "$(dirname "$0")/../.."
cache=.cache
missing=()
apt=(apt-get)

need() { command -v "$1" >/dev/null || missing+=("$1 is missing: $2"); }

finish() {
  [ ${#missing[@]} = 0 ] && return
  printf 'preflight: %s\n' "${missing[@]}" >&2
  exit 1
}

# Package lists of our own, where the host's know too little: no rights needed, nothing changed.
own_lists() {
  [ ${#apt[@]} = 1 ] || return 1
  echo "preflight: apt-get knows no such packages; fetching its lists into $cache/apt" >&2
  mkdir -p "$cache/apt/lists/partial" "$cache/apt/archives/partial"
  apt=(apt-get -o "Dir::State::Lists=$PWD/$cache/apt/lists" -o "Dir::Cache=$PWD/$cache/apt" -o APT::Sandbox::User=root)
  "${apt[@]}" update -qq 2>/dev/null
}

# closure PACKAGE…: these and what they need beyond what this host has
closure() {
  printf '%s\n' "$@"
  LC_ALL=C "${apt[@]}" -s -o Debug::NoLocking=1 install --no-install-recommends "$@" | awk '$1 == "Inst" { print $2 }'
}

# fetch NAME PACKAGE…: into .cache/NAME/packages; the lists are refreshed once if need be
fetch() {
  local into=$PWD/$cache/$1/packages
  shift
  echo "preflight: fetching Debian packages: $*" >&2
  mkdir -p "$into"
  (cd "$into" && "${apt[@]}" download -qq "$@" >/dev/null 2>"$into/log") && return
  own_lists || { cat "$into/log" >&2; return 1; }
  (cd "$into" && "${apt[@]}" download -qq "$@" >/dev/null 2>"$into/log") && return
  cat "$into/log" >&2
  return 1
}

# unpack NAME PACKAGE…: the packages below .cache/NAME, unless they are there
unpack() {
  local name=$1 package
  shift
  [ -e "$cache/$name/.complete" ] && return
  command -v apt-get >/dev/null || { missing+=("$*: this host has no apt-get; put them below $cache/$name by hand"); return; }
  fetch "$name" "$@" || { missing+=("$*: apt-get cannot fetch them; run make fetch once with a network"); return; }
  for package in "$cache/$name/packages"/*.deb; do dpkg -x "$package" "$cache/$name"; done
  rm -rf "$cache/$name/packages"
  touch "$cache/$name/.complete"
}

# with_needs NAME PACKAGE…: below .cache/NAME, with all that this host lacks for them
with_needs() {
  local name=$1 packages
  shift
  [ -e "$cache/$name/.complete" ] && return
  command -v apt-get >/dev/null || { missing+=("$*: this host has no apt-get; put them below $cache/$name by hand"); return; }
  packages=$(closure "$@") || { own_lists && packages=$(closure "$@"); } || { missing+=("apt-get does not know $*"); return; }
  # shellcheck disable=SC2046
  unpack "$name" $(sort -u <<<"$packages")
}

# The suite that the distribution builds its newest packages in, with lists of our own. It moves: what
# `make test-swap` ran with stands in its closing table.
newest_suite() {
  local own=$PWD/$cache/apt-new suite components key mirror
  # shellcheck disable=SC1091
  case $(. /etc/os-release && echo "$ID") in
  debian) suite=sid components=main key=debian ;;
  ubuntu) suite=devel components="main universe" key=ubuntu ;;
  *) return 1 ;;
  esac
  mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | sed -n 1p)
  [ -n "$mirror" ] || return 1
  for key in /usr/share/keyrings/"$key"-archive-keyring.{pgp,gpg} ""; do [ ! -e "$key" ] || break; done
  mkdir -p "$own"/{lists,archives}/partial
  echo "deb ${key:+[signed-by=$key]} $mirror $suite $components" >"$own/sources.list"
  apt=(apt-get -o "Dir::Etc::sourcelist=$own/sources.list" -o Dir::Etc::sourceparts=/nonexistent -o "Dir::State::lists=$own/lists"
    -o "Dir::Cache=$own" -o Dir::State::status=/dev/null -o APT::Sandbox::User=root -o Acquire::Languages=none)
  echo "preflight: fetching the package lists of $suite into $cache/apt-new" >&2
  "${apt[@]}" update -qq
}

# Upstream's newest programs and the libraries that they name; of the C library only where some of
# them need a newer one than this host has. They run with the host's everything else.
peers_new() {
  local programs=(docker.io docker-cli containerd runc crun) libraries
  [ -e "$cache/peers-new/.complete" ] && return
  command -v apt-get >/dev/null || { missing+=("${programs[*]}, current releases: this host has no apt-get; put them below $cache/peers-new by hand"); return; }
  newest_suite || { missing+=("the newest packages of ${programs[*]}: apt-get cannot fetch their lists"); return; }
  libraries=$(LC_ALL=C apt-cache "${apt[@]:1}" depends --no-recommends --no-suggests "${programs[@]}" | awk '$1 == "Depends:" && $2 ~ /^lib/ && $2 != "libc6" { print $2 }' | sort -u)
  if dpkg --compare-versions "$(dpkg-query -W -f '${Version}' libc6)" lt "$(LC_ALL=C apt-cache "${apt[@]:1}" show --no-all-versions libc6 | awk '$1 == "Version:" { print $2 }')"; then
    unpack peers-new/libc libc6
  fi
  # shellcheck disable=SC2086
  unpack peers-new "${programs[@]}" $libraries
}

# A Go compiler and the packages that our program over Docker's client imports, and the program itself. The
# client's package asks for all that Docker is built of; what is needed of it is named here.
docker_go() {
  local packages name root=$PWD/$cache/docker-go
  packages=$(closure golang-go) || { own_lists && packages=$(closure golang-go); } || { missing+=("apt-get does not know golang-go"); return; }
  for name in docker-docker docker-distribution docker-go-connections docker-go-units gogo-protobuf \
    opencontainers-go-digest opencontainers-image-spec pkg-errors sirupsen-logrus; do
    packages+=" golang-github-$name-dev"
  done
  # shellcheck disable=SC2046,SC2086
  unpack docker-go $(printf '%s\n' $packages golang-golang-x-{net,sys}-dev | sort -u)
  [ -e "$root/.complete" ] || return 0
  # Its cache makes that nothing where nothing has changed.
  env GOROOT="$root/usr/lib/go" GOPATH="$root/usr/share/gocode" GOCACHE="$root/cache" GO111MODULE=off GOFLAGS= CGO_ENABLED=0 \
    "$root/usr/lib/go/bin/go" build -o "$root/docker_go" integration-tests/tests/swap/sdk/docker_go.go ||
    { echo "preflight: docker_go.go is written for Docker's client 20.10 and does not build with this distribution's; its row fails" >&2; return; }
  touch "$root/docker_go"
}

# The emulator with its libraries, and the kernel that the distribution has for clouds.
vm() {
  [ -e "$cache/vm/.complete" ] && return
  local emulator kernel packages name
  case $(uname -m) in
  x86_64) emulator=qemu-system-x86 name=amd64 ;;
  aarch64) emulator=qemu-system-arm name=arm64 ;;
  *) missing+=("make test-cgroup2 knows no emulator for $(uname -m)"); return ;;
  esac
  command -v apt-get >/dev/null || { missing+=("$emulator: this host has no apt-get; put it and a kernel below $cache/vm by hand"); return; }
  kernel=$(cloud_kernel "$name") || { own_lists && kernel=$(cloud_kernel "$name"); } ||
    { missing+=("apt-get knows no kernel for a virtual machine (linux-image-cloud-$name, linux-image-virtual)"); return; }
  packages=$(closure "$emulator") || { own_lists && packages=$(closure "$emulator"); } ||
    { missing+=("apt-get does not know $emulator"); return; }
  # shellcheck disable=SC2086
  unpack vm $(sort -u <<<"$packages") $kernel
}

# tool PROGRAM PACKAGE: what tests ask of a host and a bare one has not; a wrapper in .cache/path
tool() {
  local packages directory=$PWD/$cache/$2 program
  command -v "$1" >/dev/null && return
  packages=$(closure "$2") || { own_lists && packages=$(closure "$2"); } ||
    { missing+=("$1 is missing, and apt-get does not know $2"); return; }
  # shellcheck disable=SC2046
  unpack "$2" $(sort -u <<<"$packages")
  program=$(find "$directory" -path "*bin/$1" -type f | head -1)
  mkdir -p "$cache/path"
  cat >"$cache/path/$1" <<SH
#!/bin/sh
LD_LIBRARY_PATH=$directory/usr/lib/$(uname -m)-linux-gnu:$directory/lib/$(uname -m)-linux-gnu exec $program "\$@"
SH
  chmod +x "$cache/path/$1"
}

# The packages that hold the kernel and its modules: the names above only depend on them.
cloud_kernel() {
  local name
  for name in "linux-image-cloud-$1" linux-image-virtual; do
    LC_ALL=C apt-cache "${apt[@]:1}" depends "$name" 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-(image|modules)-[0-9]/ { print $2; n++ } END { exit !n }' && return
  done
  return 1
}

case ${1:-build} in
build)
  need cargo "install Rust from https://rustup.rs"
  need cc "install a C compiler, on Debian: apt-get install gcc libc6-dev"
  finish
  target=$(uname -m)-unknown-linux-musl
  if ! [ -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    echo "preflight: fetching Rust's standard library for $target" >&2
    rustup target add "$target" >&2 || echo "preflight: runtime and shim become static with glibc; for smaller ones: rustup target add $target" >&2
  fi
  ;;
run)
  if [ "$(id -u)" != 0 ]; then need sudo "run as root, or install sudo"; fi
  unpack busybox busybox-static
  ;;
peers)
  # `docker top` asks the host's ps, with us as with dockerd.
  tool ps procps
  tool ip iproute2
  # Makes the disks whose power is cut.
  PATH=$PATH:/usr/sbin:/sbin tool mke2fs e2fsprogs
  unpack peers docker.io containerd runc crun libseccomp2 libyajl2 libsystemd0 libcap2 libdevmapper1.02.1
  unpack busybox busybox-static
  ;;
peers-new)
  unpack busybox busybox-static
  peers_new
  ;;
vm)
  unpack busybox busybox-static
  vm
  # The init of the second machine, its message bus, and what loads AppArmor's profiles.
  with_needs systemd systemd dbus-daemon dbus-system-bus-common apparmor
  # For an ordinary user there.
  with_needs rootless uidmap dbus-session-bus-common
  # What makes the third's policy of its source.
  unpack checkpolicy checkpolicy
  ;;
swap)
  "$self" bench
  "$self" peers-new
  with_needs podman podman
  with_needs docker-py python3-docker
  docker_go
  ;;
bench)
  "$self" peers
  # Stock dockerd makes its rules with these.
  unpack iptables iptables libip4tc2 libip6tc2 libxtables12 libnftnl11 libmnl0 libnfnetlink0 libnetfilter-conntrack3
  mkdir -p "$cache/iptables/path"
  for name in iptables ip6tables; do
    ln -sf ../usr/sbin/xtables-nft-multi "$cache/iptables/path/$name"
  done
  # Counts system calls, and serves the image that is pulled.
  tool strace strace
  unpack registry docker-registry
  case ${PEERS:-} in
  new) peers_new ;;
  podman) with_needs podman podman ;;
  esac
  ;;
*)
  echo "usage: preflight.sh build|run|peers|peers-new|swap|vm|bench" >&2
  exit 2
  ;;
esac
finish
