#!/bin/busybox sh
# as-user.sh COMMAND…: as the ordinary user, in a session of whom its systemd made none, as login does it.
export HOME=/home/user XDG_RUNTIME_DIR=${XDG_RUNTIME_DIR-/run/user/1000}
exec su -m -s /bin/sh -c 'exec "$0" "$@"' user -- "$@"
