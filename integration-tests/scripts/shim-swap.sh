#!/usr/bin/env bash
# Our shim under stock containerd, under its own and under the stock name, over runc, crun and runc-rs; and
# the engine over shims that write no logs. Run as root: shim-swap.sh
# Peers (containerd 1.6, runc, crun) come from .cache/peers. CONTAINERD2=DIRECTORY with a stock containerd,
# ctr and containerd-shim-runc-v2 2.x adds their rows; ONLY=REGEX picks rows by their titles. Everything runs in namespaces of its own.
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
export top bin=${BIN_DIR:-$top/target/stack} peers=${PEERS_DIR:-$top/.cache/peers}

if [ "${1:-}" != inside ]; then
  work=$(mktemp -d /tmp/swap.XXXXXX)
  trap 'rm -rf --one-file-system "$work"' EXIT
  unshare --mount --net --pid --ipc --fork --kill-child --mount-proc --propagation private \
    "$0" inside "$work"
  exit
fi

work=$2
mount -t tmpfs tmpfs /run
# crun refuses a hybrid host whose v2 side has controllers; every runtime gets the same view.
! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified
ip link set lo up
image=$work/busybox.tar
busybox=docker.io/library/busybox:latest
"$top/integration-tests/scripts/image.sh" "$image"
rows=0
failed=0

until_true() { # SECONDS COMMAND…
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "timed out: $*" >&2; return 1; }
    sleep 0.05
  done
}

expect() { # NAME EXPECTED ACTUAL
  [ "$2" != "$3" ] || return 0
  printf '%s: expected %q, got %q\n' "$1" "$2" "$3" >&2
  return 1
}

row() { # TITLE FUNCTION ARGUMENT…
  local title=$1
  shift
  [[ $title =~ ${ONLY:-.} ]] || return 0
  rows=$((rows + 1))
  # Not inside the condition: there, bash does not stop at a failing command.
  (set -e; "$@") &
  if wait $!; then echo "ok      $title"; else failed=$((failed + 1)); echo "FAILED  $title"; fi
}

# A script(1) gives the client a terminal.
on_terminal() { script -qec "$*" /dev/null </dev/null | tr -d '\r\000' | sed 's/\^[@D]//g'; }

start_containerd() { # PROGRAM DIRECTORY
  PATH=$2/bin:$PATH "$1" --config "$2/config.toml" >>"$2/log" 2>&1 &
  daemon=$!
  until_true 20 test -S "$2/c.sock"
  until_true 20 $ctr version
}

again() { # kill -9 and back: PROGRAM DIRECTORY
  kill -9 $daemon
  wait $daemon || [ $? = 137 ]
  rm -f "$2/c.sock"
  start_containerd "$@"
}

prepare() { # DIRECTORY: configuration and an own PATH
  mkdir -p "$1/bin"
  cat >"$1/config.toml" <<TOML
version = 2
root = "$1/root"
state = "$1/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "$1/c.sock"
TOML
  ln -s "$bin/runc-rs" "$peers/usr/sbin/runc" "$peers/usr/bin/crun" "$1/bin/"
}

shim_cell() { # PROGRAMS(directory with containerd and ctr) NAME(own|stock) RUNTIME
  local at daemon ctr run code=0
  at=$(mktemp -d "$work/XXXX")
  prepare "$at"
  ln -s "$bin/containerd-shim-runc-rs-v2" "$at/bin/"
  # Runtimes keep state and cgroups by namespace, and all rows share a host.
  local namespace=swap$rows
  ctr="$1/ctr -a $at/c.sock -n $namespace"
  if [ "$2" = own ]; then
    # Stock ctr takes --runc-binary for the stock name only.
    run="$bin/ctr-rs -a $at/c.sock -n $namespace run --runtime io.containerd.runc-rs.v2 --runc-binary $at/bin/$3"
  else
    ln -s containerd-shim-runc-rs-v2 "$at/bin/containerd-shim-runc-v2"
    run="$ctr run --runtime io.containerd.runc.v2 --runc-binary $at/bin/$3"
  fi
  start_containerd "$1/containerd" "$at"
  $ctr images import "$image" >/dev/null
  expect run hi "$($run --rm $busybox a echo hi)"
  $run --rm $busybox b sh -c 'exit 7' || code=$?
  expect exit-code 7 $code
  expect stderr oh "$($run --rm $busybox c sh -c 'echo oh >&2' 2>&1 >/dev/null)"
  expect stdin "got over" "$(echo over | $run --rm $busybox d sh -c 'read x; echo got $x')"
  expect bytes "$(seq 200000 | sha256sum)" "$($run --rm $busybox e seq 200000 | sha256sum)"
  expect terminal yes "$(on_terminal "$run --rm -t $busybox f sh -c 'test -t 0 && test -t 1 && echo yes'")"
  $run -d $busybox g sleep 1000
  expect exec in "$($ctr tasks exec --exec-id a g echo in)"
  expect exec-stdin "got over" "$(echo over | $ctr tasks exec --exec-id b g sh -c 'read x; echo got $x')"
  code=0
  $ctr tasks exec --exec-id c g sh -c 'exit 3' || code=$?
  expect exec-code 3 $code
  $ctr tasks pause g
  expect paused PAUSED "$($ctr tasks ls | awk '$1 == "g" { print $3 }')"
  $ctr tasks resume g
  $ctr tasks metrics g >/dev/null
  again "$1/containerd" "$at"
  expect running RUNNING "$($ctr tasks ls | awk '$1 == "g" { print $3 }')"
  expect exec-after in "$($ctr tasks exec --exec-id d g echo in)"
  $ctr events >"$at/events" &
  sleep 0.5
  $ctr tasks kill -s KILL g
  until_true 10 grep -q /tasks/exit "$at/events"
  until_true 10 sh -c "$ctr tasks ls | grep -q 'g .*STOPPED'"
  expect killed 137 "$($ctr tasks rm g 2>&1 | sed -n 's/.*exit code \([0-9]*\).*/\1/p')"
  $ctr containers rm g
  until_true 10 grep -q /tasks/delete "$at/events"
  expect exits 1 "$(grep -c /tasks/exit "$at/events")"
  expect bundles "" "$(ls "$at/state/io.containerd.runtime.v2.task/$namespace")"
  until_true 10 sh -c "! ps ax -o args | grep -q '^[^ ]*containerd-shim.*$at/'"
}

docker_over_fifos() { # DIRECTORY: a containerd with c.sock, started there
  local at=$1 docker engine code=0 lines
  docker="$bin/docker-rs -H unix://$at/d.sock"
  start_engine() {
    "$bin/dockerd-rs" --containerd "$at/c.sock" --data-root "$at/data" --exec-root "$at/run" \
      --pidfile "$at/pid" -H "unix://$at/d.sock" >>"$at/engine.log" 2>&1 &
    engine=$!
    until_true 30 $docker version
  }
  start_engine
  $docker load -i "$image" >/dev/null
  local run="$docker run --network none"
  expect run hi "$($run --rm busybox echo hi)"
  $run --rm busybox sh -c 'exit 7' || code=$?
  expect exit-code 7 $code
  expect stderr oh "$($run --rm busybox sh -c 'echo oh >&2' 2>&1 >/dev/null)"
  expect stdin 5 "$(printf 12345 | $run --rm -i busybox wc -c)"
  expect terminal yes "$(on_terminal "$run --rm -it busybox sh -c 'test -t 0 && test -t 1 && echo yes'")"
  expect bytes "$(seq 200000 | sha256sum)" "$($run --rm busybox seq 200000 | sha256sum)"
  $run -d --name talk busybox sh -c 'echo one; echo two >&2; while read x; do echo said $x; done; sleep 1000' >/dev/null
  until_true 10 sh -c "$docker logs talk 2>&1 | grep -q two"
  expect logs one "$($docker logs talk 2>/dev/null)"
  expect exec in "$($docker exec talk echo in)"
  expect exec-stdin 3 "$(printf abc | $docker exec -i talk wc -c)"
  code=0
  $docker exec talk sh -c 'exit 4' || code=$?
  expect exec-code 4 $code
  expect exec-terminal yes "$(on_terminal "$docker exec -it talk sh -c 'test -t 0 && echo yes'")"
  $docker rm -f talk >/dev/null

  $run -d -i --name echo busybox sh -c 'read x; echo got $x' >/dev/null
  expect attach "got over" "$( (echo over; sleep 1) | $docker attach echo)"
  until_true 10 sh -c "[ \$($docker ps -q | wc -l) = 0 ]"
  expect attach-log "got over" "$($docker logs echo)"
  $docker rm echo >/dev/null

  # The engine is away while the container writes: it waits, nothing is lost and nothing comes twice.
  $run -d --name lines busybox sh -c 'seq 1 300000; sleep 1000' >/dev/null
  $docker logs -f lines >"$at/follow" 2>/dev/null &
  until_true 20 grep -q . "$at/follow"
  kill -TERM $engine
  wait $engine || true
  start_engine
  until_true 60 sh -c "$docker logs lines | tail -1 | grep -qx 300000"
  expect lines "$(seq 300000 | sha256sum)" "$($docker logs lines | sha256sum)"
  expect exec-after in "$($docker exec lines echo in)"
  $docker stop -t 1 lines >/dev/null
  expect stopped 137 "$($docker inspect -f '{{.State.ExitCode}}' lines)"
  $docker rm lines >/dev/null

  $run -d --name rotated --log-opt max-size=100k --log-opt max-file=3 busybox seq 30000 >/dev/null
  until_true 20 sh -c "$docker inspect -f '{{.State.Status}}' rotated | grep -q exited"
  expect rotated 30000 "$($docker logs rotated | tail -1)"
  lines=$(ls "$at"/data/containers/*/*-json.log* | grep -c 'json.log\(\.[0-9]\)\?$')
  expect files 3 "$lines"
  $docker rm rotated >/dev/null
  expect left "" "$($docker ps -aq)"
  kill -TERM $engine
  wait $engine || true
}

engine_over_stock_shim() {
  local at daemon ctr
  at=$(mktemp -d "$work/XXXX")
  prepare "$at"
  cat >>"$at/config.toml" <<TOML
[plugins."io.containerd.runc-rs".shims]
  "io.containerd.runc.v2" = "$peers/usr/bin/containerd-shim-runc-v2"
TOML
  ctr="$bin/ctr-rs -a $at/c.sock"
  start_containerd "$bin/containerd-rs" "$at"
  docker_over_fifos "$at"
}

engine_over_containerd() { # PROGRAMS SHIM
  local at daemon ctr
  at=$(mktemp -d "$work/XXXX")
  prepare "$at"
  ln -s "$2" "$at/bin/containerd-shim-runc-v2"
  ctr="$1/ctr -a $at/c.sock"
  start_containerd "$1/containerd" "$at"
  docker_over_fifos "$at"
}

# Peers bring their libraries; programs of the host take them too where they fit.
export LD_LIBRARY_PATH=$peers/usr/lib/x86_64-linux-gnu:$peers/lib/x86_64-linux-gnu
for name in own stock; do
  for runtime in runc crun runc-rs; do
    row "containerd 1.6 -> shim ($name name) -> $runtime" shim_cell "$peers/usr/bin" $name $runtime
  done
done
row "dockerd-rs -> containerd-rs -> containerd-shim-runc-v2 1.6" engine_over_stock_shim
if [ -n "${CONTAINERD2:-}" ]; then
  # Debian 12's crun is too old for the specification that these write.
  for name in own stock; do
    for runtime in runc runc-rs; do
      row "containerd 2 -> shim ($name name) -> $runtime" shim_cell "$CONTAINERD2" $name $runtime
    done
  done
  row "dockerd-rs -> containerd 2 -> its shim" \
    engine_over_containerd "$CONTAINERD2" "$CONTAINERD2/containerd-shim-runc-v2"
  row "dockerd-rs -> containerd 2 -> our shim" \
    engine_over_containerd "$CONTAINERD2" "$bin/containerd-shim-runc-rs-v2"
fi
echo "$rows rows, $failed failed"
[ $failed = 0 ]
