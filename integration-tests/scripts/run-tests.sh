#!/usr/bin/env bash
# Builds the tests as the caller, runs them as root (they make namespaces and mounts) and prints the
# ten slowest. `list` only builds the integration tests and names the programs that the virtual machine
# runs; `swap` compares containers with stock's and runs the swap matrix, and nothing else.
# `long` runs the storm of kills and the power cuts, kills of the runtime after each of its system calls, and
# races: N=kills CUTS=cuts of each disk ROUNDS=of each race SEED=number.
# Usage: run-tests.sh unit|integration|swap|long|list
set -euo pipefail
cd "$(dirname "$0")/../.."
kind=$1
export BIN_DIR=${BIN_DIR:-$PWD/target/stack} RUST_BACKTRACE=1
export PATH=$PATH:$PWD/.cache/path # what a bare host has not
root=()
[ "$(id -u)" = 0 ] || root=(sudo -E)
threads=()
if [ "$kind" = unit ]; then
  # The same cases each time; `make fuzz` looks for new ones.
  export PROPTEST_RNG_SEED=${PROPTEST_RNG_SEED:-1}
  select=(--workspace --exclude integration-tests --all-features --lib --bins)
elif [ "$kind" = swap ]; then
  select=(-p integration-tests --test swap --test equal)
elif [ "$kind" = long ]; then
  select=(-p integration-tests --test failure --test runtime)
else
  select=(-p integration-tests --tests)
  # `make test-swap` has the comparison with stock in one run.
  threads=(--test-threads=2 --skip beside_stock)
fi
listing=$(cargo test --locked --no-run "${select[@]}" 2>&1) || { echo "$listing"; exit 1; }
mapfile -t programs < <(sed -n 's/.*Executable .*(\(.*\))$/\1/p' <<<"$listing")
[ ${#programs[@]} -gt 0 ] || { echo "no tests were built" >&2; exit 1; }
if [ "$kind" = list ]; then
  printf '%s\n' "${programs[@]}" | grep -E '/(runtime|shim|containerd)-'
  exit
fi
if [ "$kind" = long ]; then
  for program in "${programs[@]}"; do
    case $program in
    */failure-*)
      "${root[@]}" "$program" --nocapture storm::
      "${root[@]}" env N="${CUTS:-50}" "$program" --nocapture power::
      ;;
    */runtime-*)
      "${root[@]}" env EVERY=1 ROUNDS="${ROUNDS:-10000}" "$program" --test-threads=2 --nocapture killed:: races::
      ;;
    esac
  done
  exit
fi
if [ "$kind" = swap ]; then
  failed=0
  for program in "${programs[@]}"; do
    case $program in
    */equal-*) "${root[@]}" "$program" --test-threads=2 beside_stock || failed=1 ;;
    */swap-*) "${root[@]}" "$program" || failed=1 ;;
    esac
  done
  exit $failed
fi
times=$(mktemp); trap 'rm -f "$times" "$times.one"' EXIT
failed=0
for program in "${programs[@]}"; do
  case $program in */tree-* | */swap-*) continue ;; esac # make check and make test-swap run them
  echo "== ${program##*/}"
  # The clock of the test runner is behind an unstable option; the variable opens it.
  "${root[@]}" env RUSTC_BOOTSTRAP=1 PATH="$PATH" "$program" -Zunstable-options --report-time "${threads[@]}" 2>&1 \
    | tee "$times.one" || failed=1
  sed -n 's/^test \(.*\) \.\.\. .* <\([0-9.]*\)s>$/\2 \1/p' "$times.one" >>"$times"
done
echo "ten slowest, in seconds:"
sort -rn "$times" | sed -n 1,10p
exit $failed
