#!/usr/bin/env bash
# The property tests over foreign bytes (ttrpc and attach frames, layers, references, filters, log
# records …) with new cases for FUZZ_SECONDS (300), shared out evenly. What fails is printed at its
# smallest and kept by proptest beside the test.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${FUZZ_SECONDS:-300}

# properties DIRECTORY: the tests in its proptest! blocks
properties() {
  find "$1/src" -name '*.rs' -exec awk '
    FNR == 1 { end = "" }
    /^ *(proptest::)?proptest! *\{/ { end = $0; sub(/[^ ].*/, "}", end); next }
    end != "" && $0 == end { end = "" }
    end != "" && /^ *fn [a-z0-9_]+\(/ { sub(/^ *fn /, ""); sub(/\(.*/, ""); print }' {} +
}

packages=()
mapfile -t manifests < <(git ls-files '*Cargo.toml')
for manifest in "${manifests[@]}"; do
  directory=${manifest%Cargo.toml}
  [ -d "${directory}src" ] || continue
  [ -z "$(properties "${directory%/}")" ] || packages+=("$(sed -n 's/^name = "\(.*\)"/\1/p' "$manifest" | head -1)=${directory%/}")
done
[ ${#packages[@]} -gt 0 ] || { echo "fuzz: no property tests found" >&2; exit 1; }
declare -A programs
for package in "${packages[@]}"; do
  targets=(--bins)
  [ ! -e "${package#*=}/src/lib.rs" ] || targets=(--lib)
  listing=$(cargo test --locked --no-run --all-features -p "${package%%=*}" "${targets[@]}" 2>&1) || { echo "$listing"; exit 1; }
  programs[$package]=$(sed -n 's/.*Executable .*(\(.*\))$/\1/p' <<<"$listing" | xargs realpath)
done

share=$((seconds / ${#packages[@]}))
output=$(mktemp)
trap 'rm -f "$output"' EXIT
failed=0
total=0
SECONDS=0
for package in "${packages[@]}"; do
  directory=${package#*=}
  mapfile -t names < <(properties "$directory")
  end=$((SECONDS + (share > 0 ? share : 1)))
  cases=100 ran=0 verdict=ok
  while [ $SECONDS -lt $end ] && [ $verdict = ok ]; do
    from=$SECONDS
    passed=0
    for program in ${programs[$package]}; do
      code=0
      # A round that takes longer than what is left ends with it; so does a case that hangs.
      (cd "$directory" && PROPTEST_CASES=$cases timeout $((end - from + 5)) "$program" "${names[@]}") >"$output" 2>&1 || code=$?
      case $code in
      0) passed=$((passed + $(awk '/^test result: ok/ { n += $4 } END { print n + 0 }' "$output"))) ;;
      124) [ "$cases" != 100 ] || { verdict=FAILED && echo "no hundred cases in $((end - from + 5)) s"; } ;;
      *) verdict=FAILED && cat "$output" ;;
      esac
    done
    if [ $verdict = ok ] && [ $code = 0 ]; then
      [ $passed -ge ${#names[@]} ] || { verdict=FAILED && echo "only $passed of: ${names[*]}"; }
      ran=$((ran + cases))
    fi
    [ $((SECONDS - from)) -ge 5 ] || cases=$((cases * 2))
  done
  [ $verdict = ok ] || failed=$((failed + 1))
  total=$((total + ran * ${#names[@]}))
  printf '%-7s %-16s %d properties, %d cases each\n' $verdict "${package%%=*}" ${#names[@]} $ran
done
echo "$total cases in $SECONDS s, $failed failed"
[ $failed = 0 ]
