#!/usr/bin/env bash
# Makes a docker-archive of busybox from the distribution's static busybox. Usage: image.sh OUT.tar
set -euo pipefail
out=$(realpath -m "$1")
root=$(cd "$(dirname "$0")/../.." && pwd)
busybox=$root/.cache/busybox/bin/busybox
[ -x "$busybox" ] || busybox=$root/.cache/busybox/usr/bin/busybox
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/rootfs"/{bin,etc,root,tmp,var/www,home} "$work/image/layer"
install -m 755 "$busybox" "$work/rootfs/bin/busybox"
for applet in $("$busybox" --list); do
  [ "$applet" = busybox ] || ln "$work/rootfs/bin/busybox" "$work/rootfs/bin/$applet"
done
chmod 1777 "$work/rootfs/tmp"
printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$work/rootfs/etc/passwd"
printf 'root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n' >"$work/rootfs/etc/group"
echo 'made by a private stack' >"$work/rootfs/var/www/index.html"
tar -C "$work/rootfs" --owner=0 --group=0 --sort=name --mtime=@1700000000 -cf "$work/image/layer/layer.tar" .
diff=$(sha256sum "$work/image/layer/layer.tar" | cut -d' ' -f1)
case $(uname -m) in x86_64) arch=amd64 ;; aarch64) arch=arm64 ;; *) arch=$(uname -m) ;; esac
printf '{"architecture":"%s","os":"linux","created":"2023-11-14T22:13:20Z","config":{"Env":["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]},"history":[{"created":"2023-11-14T22:13:20Z","created_by":"static busybox"}]}' "$arch" "$diff" >"$work/config"
config=$(sha256sum "$work/config" | cut -d' ' -f1)
mv "$work/config" "$work/image/$config.json"
printf '[{"Config":"%s.json","RepoTags":["busybox:latest"],"Layers":["layer/layer.tar"]}]' "$config" >"$work/image/manifest.json"
tar -C "$work/image" -cf "$out" .
