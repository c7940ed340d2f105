#!/usr/bin/env bash
# A private stack beside whatever Docker is there. Usage: stack.sh run|up|down
#   run  starts one, runs containers, ends it; CMD='…' runs that inside a container instead of the
#        tour, IMAGE=name pulls that image and runs the command in it
#   up   starts one and leaves it running; down ends it
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd)
bin=${BIN_DIR:-$top/target/stack}
state=${STACK_DIR:-/var/tmp/docker-rs-stack}
run=${STACK_RUN:-/run/docker-rs-stack}
socket=$run/docker.sock
cgroup=/${run##*/}
busybox=$(find "$top/.cache/busybox" -name busybox -type f -perm -100 2>/dev/null | head -1)
image=${IMAGE:-busybox}
docker() { "$bin/docker-rs" -H "unix://$socket" "$@"; }
say() { [ -n "${CMD:-}" ] || printf '\n== %s\n' "$*"; }

# alive PIDFILE NAME: the process of that name that the file tells of
alive() {
  local pid
  pid=$(cat "$1" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "${2:0:15}" ] && echo "$pid"
}

up() {
  if alive "$run/dockerd.pid" dockerd-rs >/dev/null; then
    echo "a stack is running already; make down ends it" >&2
    return 1
  fi
  mkdir -p "$state" "$run"
  setsid "$bin/dockerd-rs" --data-root "$state" --exec-root "$run" --pidfile "$run/dockerd.pid" \
    -H "unix://$socket" --cgroup-parent "$cgroup" >"$state/dockerd.log" 2>&1 </dev/null &
  local daemon=$!
  for _ in $(seq 200); do
    docker version >/dev/null 2>&1 && return
    kill -0 "$daemon" 2>/dev/null || break
    sleep 0.05
  done
  echo "dockerd-rs did not come up; the end of $state/dockerd.log:" >&2
  tail -20 "$state/dockerd.log" >&2
  return 1
}

stop() { # PIDFILE NAME
  local pid
  pid=$(alive "$1" "$2") || return 0
  kill "$pid"
  for _ in $(seq 300); do
    alive "$1" "$2" >/dev/null || return 0
    sleep 0.05
  done
  echo "$2 ($pid) did not end in 15 s; killing it" >&2
  kill -9 "$pid"
}

down() {
  local containers
  if alive "$run/dockerd.pid" dockerd-rs >/dev/null; then
    containers=$(docker ps -aq)
    # shellcheck disable=SC2086
    [ -z "$containers" ] || docker rm -f -v $containers >/dev/null
  fi
  stop "$run/dockerd.pid" dockerd-rs
  stop "$run/containerd/containerd.pid" containerd-rs
  local bridge
  bridge=$(cat "$state/bridge" 2>/dev/null || :)
  if [ -n "$bridge" ] && [ -e "/sys/class/net/$bridge" ]; then "$busybox" ip link delete "$bridge"; fi
  awk -v a="$state" -v b="$run" '{ if (index($5, a "/") == 1 || index($5, b "/") == 1) print $5 }' /proc/self/mountinfo |
    sort -r | while read -r mount; do umount -l "$mount"; done
  find /sys/fs/cgroup -maxdepth 2 -type d -path "/sys/fs/cgroup*$cgroup" -exec rmdir {} +
  rm -rf --one-file-system "$state" "$run"
}

load() {
  if [ -n "${IMAGE:-}" ]; then
    say "docker-rs pull $image"
    docker pull "$image"
    [ -z "${CMD:-}" ] || return 0
  fi
  say "docker-rs load (the distribution's static busybox)"
  "$top/integration-tests/scripts/image.sh" "$state/busybox.tar"
  docker load -q -i "$state/busybox.tar"
}

tour() {
  say "docker-rs run --rm $image echo"
  docker run --rm "$image" echo "hello from a container"
  # Other images need not have a server.
  say "docker-rs run -d -p 127.0.0.1::80 busybox httpd"
  docker run -d --name web -p 127.0.0.1::80 busybox httpd -f -v -p 80 -h /var/www
  local address answer
  address=$(docker port web 80)
  for _ in $(seq 100); do
    answer=$( { exec 3<>"/dev/tcp/${address%:*}/${address##*:}" && printf 'GET / HTTP/1.0\r\n\r\n' >&3 && cat <&3; } 2>/dev/null) && [ -n "$answer" ] && break
    sleep 0.05
  done
  say "GET http://$address/"
  tail -1 <<<"$answer"
  grep -q 'made by a private stack' <<<"$answer"
  say "docker-rs ps"
  docker ps
  say "docker-rs logs web"
  docker logs web
  docker rm -f web >/dev/null
  say "done"
}

case ${1:-run} in
up)
  up
  load >/dev/null
  # Who may become root may use the socket, as a member of Docker's group may.
  [ -z "${SUDO_UID:-}" ] || chown "$SUDO_UID" "$socket"
  cat <<TEXT
export DOCKER_HOST=unix://$socket
  docker:   $bin/docker-rs run --rm $image echo hello
  ctr-rs:   ${SUDO_UID:+sudo }$bin/ctr-rs -a $run/containerd/containerd.sock -n moby images ls
  runc-rs:  ${SUDO_UID:+sudo }$bin/runc-rs --root $run/runtime-runc/moby list
make down ends it.
TEXT
  ;;
down) down ;;
run)
  trap 'code=$?; down || code=1; exit $code' EXIT
  up
  if [ -n "${CMD:-}" ]; then
    load >/dev/null
    docker run --rm "$image" sh -c "$CMD"
  else
    load
    tour
  fi
  ;;
*)
  echo "usage: stack.sh run|up|down" >&2
  exit 2
  ;;
esac
