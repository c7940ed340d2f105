#!/usr/bin/env bash
# Our programs beside upstream's. Builds as the caller, runs as root. Usage: bench.sh [SECTION…]
set -euo pipefail
cd "$(dirname "$0")/../.."
# The profile of the tests: what is measured runs in other processes, built as they ship.
listing=$(cargo test --locked --no-run -p integration-tests --bench stack 2>&1) || { echo "$listing" >&2; exit 1; }
program=$(sed -n 's/.*Executable .*(\(.*\))$/\1/p' <<<"$listing")
root=()
[ "$(id -u)" = 0 ] || root=(sudo -E)
mkdir -p target/bench
work=$(mktemp -d /tmp/docker-rs-bench.XXXXXX)
clean() {
  "${root[@]}" rm -rf --one-file-system "$work"
  "${root[@]}" find /sys/fs/cgroup -depth -type d -path "*/${work##*/}*" -exec rmdir {} + 2>/dev/null
}
trap 'code=$?; clean; exit $code' EXIT
# Tools that a bare host has not, see preflight.sh.
"${root[@]}" env PATH="$PWD/.cache/path:$PATH" BENCH_WORK="$work" "$program" "$@"
