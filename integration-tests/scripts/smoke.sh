#!/usr/bin/env bash
# One row a seam, each with upstream's program (Debian 12: docker 20.10, containerd 1.6, runc 1.1)
# on one side. Peers are unpacked below .cache. Everything runs in namespaces of its own.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
export top bin=${BIN_DIR:-$top/target/stack} peers=${PEERS_DIR:-$top/.cache/peers}
export LD_LIBRARY_PATH=$peers/usr/lib/x86_64-linux-gnu:$peers/lib/x86_64-linux-gnu

if [ "${1:-}" != inside ]; then
  work=$(mktemp -d /tmp/smoke.XXXXXX)
  trap 'rm -rf --one-file-system "$work"' EXIT
  unshare --mount --net --pid --ipc --fork --kill-child --mount-proc --propagation private \
    "$0" inside "$work"
  exit
fi

work=$2
mount -t tmpfs tmpfs /run
mkdir -p "$work/tmp"
"$(find "$top/.cache/busybox" -name busybox -type f -perm -100 | head -1)" ip link set lo up
rows=0
failed=0
image=$work/busybox.tar
"$top/integration-tests/scripts/image.sh" "$image"

# until_true SECONDS COMMAND…
until_true() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "timed out: $*" >&2; return 1; }
    sleep 0.05
  done
}

expect() { # NAME EXPECTED ACTUAL
  if [ "$2" = "$3" ]; then return; fi
  printf '%s: expected %q, got %q\n' "$1" "$2" "$3" >&2
  return 1
}

row() { # TITLE FUNCTION
  rows=$((rows + 1))
  # Not inside the condition: there, bash does not stop at a failing command.
  (set -e; "$2") &
  if wait $!; then echo "ok      $1"; else failed=$((failed + 1)); echo "FAILED  $1"; fi
}

containerd_config() { # DIRECTORY
  mkdir -p "$1"
  cat >"$1/config.toml" <<TOML
version = 2
root = "$1/root"
state = "$1/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$1/c.sock"
TOML
}

# ctr_scenario SOCKET RUNTIME: import, run, exit code, detached, exec, kill
ctr_scenario() {
  local ctr="$peers/usr/bin/ctr -a $1" runtime=$2
  shift 2
  $ctr images import "$image" >/dev/null
  expect run "hi" "$($ctr run --rm --runtime "$runtime" "$@" docker.io/library/busybox:latest a echo hi)"
  local code=0
  $ctr run --rm --runtime "$runtime" "$@" docker.io/library/busybox:latest b sh -c 'exit 7' || code=$?
  expect exit-code 7 "$code"
  $ctr run -d --runtime "$runtime" "$@" docker.io/library/busybox:latest c sleep 1000 >/dev/null
  expect exec "in" "$($ctr tasks exec --exec-id e c echo in)"
  $ctr tasks kill -s KILL c
  until_true 5 sh -c "$ctr tasks ls | grep -q 'c .*STOPPED'"
  $ctr tasks rm c >/dev/null
  $ctr containers rm c
}

stock_docker_over_dockerd_rs() {
  local docker="$peers/usr/bin/docker -H unix://$work/e/d.sock"
  mkdir -p "$work/e"
  "$bin/dockerd-rs" --data-root "$work/e/data" --exec-root "$work/e/run" --pidfile "$work/e/pid" \
    -H "unix://$work/e/d.sock" >"$work/e/log" 2>&1 &
  until_true 10 $docker version || { tail -20 "$work/e/log" >&2; return 1; }
  $docker load -q -i "$image" >/dev/null
  expect run "hi" "$($docker run --rm busybox echo hi)"
  expect stdin "over" "$(echo over | $docker run --rm -i --network none busybox cat)"
  local code=0
  $docker run --rm busybox sh -c 'exit 7' || code=$?
  expect exit-code 7 "$code"
  $docker run -d --name web -p 127.0.0.1:8080:80 busybox httpd -f -h /var/www >/dev/null
  expect exec "in" "$($docker exec web echo in)"
  until_true 5 wget_local 8080
  $docker rm -f web >/dev/null
  expect empty "" "$($docker ps -aq)"
}

wget_local() {
  exec 3<>"/dev/tcp/127.0.0.1/$1" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && grep -q 'private stack' <&3
}

stock_ctr_over_containerd_rs() {
  containerd_config "$work/s"
  "$bin/containerd-rs" --config "$work/s/config.toml" >"$work/s/log" 2>&1 &
  until_true 10 "$peers/usr/bin/ctr" -a "$work/s/c.sock" version
  ctr_scenario "$work/s/c.sock" io.containerd.runc.v2
}

stock_containerd_over_our_shim() {
  containerd_config "$work/t"
  PATH=$bin:$peers/usr/sbin:$PATH "$peers/usr/bin/containerd" --config "$work/t/config.toml" >"$work/t/log" 2>&1 &
  until_true 10 "$peers/usr/bin/ctr" -a "$work/t/c.sock" version
  ctr_scenario "$work/t/c.sock" io.containerd.runc-rs.v2
}

stock_shim_over_runc_rs() {
  containerd_config "$work/r"
  PATH=$peers/usr/bin:$PATH "$peers/usr/bin/containerd" --config "$work/r/config.toml" >"$work/r/log" 2>&1 &
  until_true 10 "$peers/usr/bin/ctr" -a "$work/r/c.sock" version
  ctr_scenario "$work/r/c.sock" io.containerd.runc.v2 --runc-binary "$bin/runc-rs"
}

row "docker $("$peers/usr/bin/docker" --version | sed 's/.*version \([^,]*\).*/\1/') -> dockerd-rs" stock_docker_over_dockerd_rs
row "ctr 1.6 -> containerd-rs" stock_ctr_over_containerd_rs
row "containerd 1.6 -> containerd-shim-runc-rs-v2" stock_containerd_over_our_shim
row "containerd-shim-runc-v2 1.6 -> runc-rs" stock_shim_over_runc_rs
echo "$rows rows, $failed failed"
[ $failed = 0 ]
