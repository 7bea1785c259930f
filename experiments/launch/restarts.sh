# Sourced by the launch scripts: which exit statuses lead to a new start, and how often in a row.
#
#   MAX_CRASHES     crashes in a row that are started again (5)
#   CRASH_SECONDS   a start that lasted longer is not in a row with those before (3600)

# may_restart STATUS SECONDS FILE: returns 0 when a start that ended so may be started again; FILE keeps the count.
#
# 75 asks for it (a process was lost, a step is stuck, a replay differs); 128 and more is the death by a signal, 137 for
# want of memory too. Everything else, 2 for bad input among it, would fail again.
may_restart() {
  local status=$1 seconds=$2 file=$3 crashes=0
  [ "$status" = 75 ] || [ "$status" -ge 128 ] || { echo "not started again after status $status" >&2; return 1; }
  [ ! -e "$file" ] || [ "$seconds" -gt "${CRASH_SECONDS:-3600}" ] || crashes=$(cat "$file")
  crashes=$((crashes + 1))
  echo "$crashes" > "$file"
  if [ "$crashes" -gt "${MAX_CRASHES:-5}" ]; then
    echo "status $status is crash $crashes in a row, MAX_CRASHES=${MAX_CRASHES:-5}: not started again" >&2
    return 1
  fi
  echo "status $status is crash $crashes in a row of at most ${MAX_CRASHES:-5}: started again" >&2
}
