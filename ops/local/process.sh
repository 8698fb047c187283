# shellcheck shell=bash
# Long-running processes: started in a session of their own, known by pid file, stopped for sure.
#
# A pid file holds pid, start time and boot id, so that a pid which another process got later is
# never taken for ours. The process writes it about itself before it leaves our process group: there
# is no moment at which it runs unknown to us.

process_identity() { # pid -> "start-time boot-id"; fails for a process that is gone or a zombie
  local line stat boot
  { read -r line <"/proc/$1/stat"; } 2>/dev/null || return 1
  read -r boot </proc/sys/kernel/random/boot_id
  read -ra stat <<<"${line##*) }"
  [[ ${stat[0]:-Z} != [ZX] ]] || return 1
  printf '%s %s' "${stat[19]}" "$boot"
}

process_pid() { # name -> pid, if that very process lives
  local pid start boot
  { read -r pid start boot <"$RUN_DIR/$1.pid"; } 2>/dev/null || return 1
  [[ $(process_identity "$pid") == "$start $boot" ]] || return 1
  printf '%s' "$pid"
}

process_alive() { process_pid "$1" >/dev/null; }

process_start() { # name command...
  local name=$1 log=$LOG_DIR/$1.log pid
  shift
  mkdir -p "$RUN_DIR" "$LOG_DIR"
  if [[ -f $log && $(stat -c %s "$log") -gt 20000000 ]]; then mv "$log" "$log.1"; fi
  rm -f "$RUN_DIR/$name.pid"
  printf -- '--- %s started %(%F %T)T\n' "$name" -1 >>"$log"
  (
    trap - INT TERM HUP EXIT
    exec </dev/null >>"$log" 2>&1 5>&- 6>&- 7>&- 8>&- 9>&-
    cd /
    ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
    pid=$BASHPID
    printf '%s %s\n' "$pid" "$(process_identity "$pid")" >"$RUN_DIR/$name.pid.new"
    mv "$RUN_DIR/$name.pid.new" "$RUN_DIR/$name.pid"
    exec setsid "$@"
  ) &
  until [[ -e $RUN_DIR/$name.pid ]] || ! kill -0 $! 2>/dev/null; do sleep 0.01; done
}

process_gone_within() { # name seconds
  local limit=$(($(now_ms) + $2 * 1000))
  while process_alive "$1"; do
    (($(now_ms) < limit)) || return 1
    sleep 0.05
  done
}

# Sends each signal in turn and waits the seconds after it; at the end nothing of it is left.
process_stop() { # name signal seconds [signal seconds]...
  local name=$1 pid
  shift
  if ! pid=$(process_pid "$name"); then
    rm -f "$RUN_DIR/$name.pid"
    return 0
  fi
  # One that is paused would not hear the signal.
  kill -CONT -- "-$pid" 2>/dev/null || true
  while (($# >= 2)); do
    kill "-$1" "$pid" 2>/dev/null || true
    if process_gone_within "$name" "$2"; then
      # Children that outlived it are still in its group.
      kill -KILL -- "-$pid" 2>/dev/null || true
      rm -f "$RUN_DIR/$name.pid"
      return 0
    fi
    shift 2
  done
  say "  $name does not stop: killed"
  kill -KILL "$pid" 2>/dev/null || true
  kill -KILL -- "-$pid" 2>/dev/null || true
  process_gone_within "$name" 10 || say "  $name (pid $pid) is still there"
  rm -f "$RUN_DIR/$name.pid"
}

# A signal to all of a service, its children included.
process_signal() { # name signal
  local pid
  pid=$(process_pid "$1") || die "$EXIT_SERVICE" "$1 of stack $STACK_NAME does not run"
  kill "-$2" -- "-$pid"
  [[ $2 != KILL ]] || process_gone_within "$1" 10
}

process_rss_mb() { # pid -> resident memory of it and of its children
  local status pid parent kb key value total=0
  for status in /proc/[0-9]*/status; do
    pid='' parent='' kb=0
    while read -r key value _; do
      case $key in
      Pid:) pid=$value ;;
      PPid:) parent=$value ;;
      VmRSS:) kb=$value && break ;;
      esac
    done 2>/dev/null <"$status" || true
    if [[ $pid == "$1" || $parent == "$1" ]]; then total=$((total + kb)); fi
  done
  printf '%d' $((total / 1024))
}

log_tail() { # name
  [[ -s $LOG_DIR/$1.log ]] || return 0
  say "--- last lines of $LOG_DIR/$1.log"
  # Only of the last start.
  tac "$LOG_DIR/$1.log" | sed -e '/^--- .* started /q' | head -n 15 | tac >&2
}

# Polls until the service answers. A process that ends, or a limit that passes, is one clear line
# with the end of its log.
wait_ready() { # name seconds probe...
  local name=$1 limit=$(($(now_ms) + $2 * 1000)) seconds=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ! process_alive "$name"; then
      say "ops/stack: $name ended while it was starting"
      log_tail "$name"
      return "$EXIT_SERVICE"
    fi
    if (($(now_ms) > limit)); then
      say "ops/stack: $name does not answer after $seconds s"
      log_tail "$name"
      return "$EXIT_SERVICE"
    fi
    sleep 0.1
  done
}
