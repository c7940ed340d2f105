#!/usr/bin/env bash
# Makes a docker-archive of ten layers of this host's files below /usr, with a whiteout in each but the
# first. Usage: big-image.sh OUT.tar NAME [MEGABYTES]
set -euo pipefail
out=$(realpath -m "$1")
name=$2
size=${3:-580}
layers=10
work=$(mktemp -d "$out.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir "$work/image"
find /usr -xdev -type f -readable -size -24M ! -name $'*\n*' -printf '%s\t%P\n' | LC_ALL=C sort -t $'\t' -k 2 >"$work/files"
# Each file with the directories above it that its layer has not named yet.
total=$(awk -F '\t' -v whole=$((size << 20)) -v layers=$layers -v work="$work" '
  BEGIN { layer = 1 }
  total > whole { exit }
  total > whole / layers * layer { print last >(work "/last." layer); layer++; split("", seen) }
  {
    n = split($2, part, "/"); path = part[1]
    for (i = 2; i <= n; i++) {
      if (!(path in seen)) { seen[path] = 1; print path >(work "/list." layer) }
      path = path "/" part[i]
    }
    print path >(work "/list." layer); last = path; total += $1
  }
  END { printf "%d", total / 1048576 }' "$work/files")
if [ "$total" -lt 200 ] || [ ! -e "$work/list.$layers" ]; then
  echo "big-image: this host has only $total MB below /usr" >&2
  exit 1
fi
for layer in $(seq $layers); do
  tar=$work/image/$layer.tar
  tar -C /usr --owner=0 --group=0 --hard-dereference --no-recursion --verbatim-files-from -T "$work/list.$layer" -cf "$tar"
  if [ "$layer" -gt 1 ]; then
    gone=$(cat "$work/last.$((layer - 1))")
    mkdir -p "$work/gone/${gone%/*}"
    touch "$work/gone/${gone%/*}/.wh.${gone##*/}"
    tar -C "$work/gone" --owner=0 --group=0 -rf "$tar" "${gone%/*}/.wh.${gone##*/}"
  fi
  digests+=${digests:+,}\"sha256:$(sha256sum "$tar" | cut -d' ' -f1)\"
  names+=${names:+,}\"$layer.tar\"
  history+=${history:+,}'{"created":"2023-11-14T22:13:20Z"}'
done
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
printf '{"architecture":"%s","os":"linux","created":"2023-11-14T22:13:20Z","config":{"Cmd":["true"]},"rootfs":{"type":"layers","diff_ids":[%s]},"history":[%s]}' "$arch" "$digests" "$history" >"$work/config"
config=$(sha256sum "$work/config" | cut -d' ' -f1)
mv "$work/config" "$work/image/$config.json"
printf '[{"Config":"%s.json","RepoTags":["%s:latest"],"Layers":[%s]}]' "$config" "$name" "$names" >"$work/image/manifest.json"
tar -C "$work/image" -cf "$out" .
