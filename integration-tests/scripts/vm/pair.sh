# One container, `$id`, by runc and then by runc-rs: what both leave to see is the same. `. /vm/pair.sh`
# after row.sh.
id=box
driver= # an option of the runtime before its command

# One command of the runtime whose turn it is; what it says, and its exit code where that is not 0.
call() { runtime "$turn" $driver "$@" </dev/null 2>&1 || echo "$1: $?"; }

# The same for what leaves a process behind, which must not hold the pipe.
call_detached() {
  runtime "$turn" $driver "$@" </dev/null >$work/said 2>&1 || echo "$1: $?"
  cat $work/said
}

pid() { runtime "$turn" state $id | sed -n 's/.*"pid": *\([0-9]*\).*/\1/p'; }
status() { runtime "$turn" state $id | sed -n 's/.*"status": *"\([a-z]*\)".*/\1/p'; }
place() { sed -n 's/^0:://p' "/proc/$(pid)/cgroup"; }

# same WORDS FUNCTION ARGUMENT…: prints the same with both, and with runc these words
same() {
  local words=$1
  shift
  set +e
  for turn in runc ours; do
    rm -f $work/log
    "$@" 2>&1 | tr -d '\0' >$work/$turn.says
    # Whoever failed in the midst leaves nothing for the next.
    runtime $turn delete -f $id >/dev/null 2>&1
  done
  set -e
  grep -qF -- "$words" $work/runc.says || { echo "runc does not say '$words':"; cat $work/runc.says; return 1; }
  # Its sentences begin with a time, and have what it asked for as Go prints it; see unit() for the devices.
  sed -i -e 's/^time="[^"]*" //' -e 's/ (properties \[.*\]):/:/' -e '/msg="skipping device /d' -e '/msg="unable to get oom kill count"/d' \
    -e "/msg=.* may fail if you don't have the full access to cgroups/d" \
    $work/runc.says $work/ours.says
  diff $work/runc.says $work/ours.says || { echo "for $* $path $resources $annotations $process"; return 1; }
}
