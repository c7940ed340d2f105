# What a file of rows begins with: `. /vm/row.sh`. busybox's shell is all there is.
# On the kernel's command line `rows=FUNCTION,…` picks rows, and `show=1` shows what they say while they run.
bin=/stack
work=/var/tmp/rows
cgroups=/sys/fs/cgroup
rows=0
failed=0
chosen=$(sed -n 's/.*rows=\([^ ]*\).*/\1/p' /proc/cmdline)
shown=$(sed -n 's/.*show=\([^ ]*\).*/\1/p' /proc/cmdline)
mkdir -p $work
export BIN_DIR=$bin BUSYBOX=/bin/busybox RUST_BACKTRACE=1

docker() { $bin/docker-rs -H unix:///run/d.sock "$@"; }

# until_true SECONDS COMMAND…: seconds of a real processor; an emulated one is slower
until_true() {
  local end=$(($(cut -d. -f1 /proc/uptime) + $1 * 4))
  shift
  until "$@" >/dev/null 2>&1; do
    [ "$(cut -d. -f1 /proc/uptime)" -lt $end ] || { echo "timed out: $*"; return 1; }
    sleep 0.1
  done
}

expect() { # NAME EXPECTED ACTUAL
  [ "$2" = "$3" ] || { echo "$1: expected '$2', got '$3'"; return 1; }
}

code() { # COMMAND…: its exit code, in words
  "$@" >/dev/null 2>&1 && echo 0 || echo $?
}

row() { # TITLE FUNCTION
  case ,$chosen, in ,, | *,$2,*) ;; *) return ;; esac
  rows=$((rows + 1))
  local from
  from=$(cut -d' ' -f1 /proc/uptime)
  : >$work/out
  # Not inside a condition: there the shell does not stop at a failing command.
  (set -e; $2) >$work/out 2>&1 &
  local judged=$! teller=
  if [ -n "$shown" ]; then tail -f $work/out & teller=$!; fi
  if wait $judged; then verdict=ok; else verdict=FAILED; failed=$((failed + 1)); sed 's/^/    /' $work/out; fi
  [ -z "$teller" ] || kill $teller
  awk -v v=$verdict -v t="$1" -v a="$from" '{ printf "%-7s %5.1f s  %s\n", v, $1 - a, t }' /proc/uptime
}

cgroup_of() { # CONTAINER: its directory
  echo "$cgroups$(sed -n 's/^0:://p' "/proc/$(docker inspect -f '{{.State.Pid}}' "$1")/cgroup")"
}

as= # who runs it, if not root: a command
runtime() { # NAME ARGUMENT…: one of the three
  local name=$1 program=$bin/runc-rs
  shift
  case $name in runc | crun) program=/peers/bin/$name ;; esac
  $as $program --root "$work/state-$name" "$@"
}
