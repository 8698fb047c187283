# shellcheck shell=bash
# The local stack: the four services as plain processes of this machine.

for part in process ports install kafka registry postgres clickhouse; do
  # shellcheck source=/dev/null
  source "$LOCAL/$part.sh"
done

SERVICES=(kafka registry postgres clickhouse)
BROKERS=(kafka)
if (($(stack_brokers) == 3)); then
  SERVICES+=(kafka2 kafka3)
  BROKERS+=(kafka2 kafka3)
fi
STOP_ORDER=(registry "${BROKERS[@]}" clickhouse postgres)

service_runs() { process_alive "$1"; }

# Starts one service unless it runs and answers, and says how long that took.
service_up() { # name
  local name=$1 started
  started=$(now_ms)
  if process_alive "$name"; then
    if "${name}_answers_now"; then
      printf '  %-10s already up        %s\n' "$name" "$("${name}_where")"
      return
    fi
    say "  $name runs but does not answer: starting it again"
    "${name}_stop"
  fi
  "${name}_start"
  printf '  %-10s up in %-12s%s\n' "$name" "$(seconds_since "$started")" "$("${name}_where")"
}

kafka_answers_now() { kafka_answers >/dev/null 2>&1; }
kafka2_answers_now() { kafka2_answers >/dev/null 2>&1; }
kafka3_answers_now() { kafka3_answers >/dev/null 2>&1; }
registry_answers_now() { registry_answers >/dev/null 2>&1; }
postgres_answers_now() { "$(pg_bin)/pg_isready" -q -h 127.0.0.1 -p "$POSTGRES_PORT" -t 5; }
clickhouse_answers_now() { clickhouse_answers 2>/dev/null; }

kafka_and_registry_up() {
  if ((${#BROKERS[@]} == 1)); then service_up kafka; else brokers_up; fi
  service_up registry
}

stack_up() {
  local began running_before=() name
  began=$(now_ms)
  lock_stack
  trap 'stack_up_failed 130' INT TERM HUP
  install_packages "${PACKAGES_TO_RUN[@]}"
  install_services
  for name in "${SERVICES[@]}"; do
    if process_alive "$name"; then running_before+=("$name"); fi
  done
  RUNNING_BEFORE=" ${running_before[*]:-} "
  local brokers_before=''
  ports_load
  [[ -z ${KAFKA_PORT:-} ]] || brokers_before=$(KAFKA2_PORT=${KAFKA2_PORT:-} KAFKA3_PORT=${KAFKA3_PORT:-} brokers_list)
  ports_choose
  # A registry that was started with another broker address would never find it again.
  [[ $brokers_before == "$(brokers_list)" ]] || registry_stop
  echo "stack $STACK_NAME (local processes) in $STACK_DIR"
  job_start service_up postgres
  job_start service_up clickhouse
  job_start kafka_and_registry_up
  jobs_wait || stack_up_failed $?
  trap - INT TERM HUP
  stack_env_write
  echo "stack $STACK_NAME is up in $(seconds_since "$began"); settings in $STACK_ENV"
}

# What this call has started is stopped again; what ran before stays.
stack_up_failed() { # status
  trap '' INT TERM HUP
  jobs_kill
  [[ -n ${RUNNING_BEFORE:-} ]] || exit "$1"
  local name
  for name in "${STOP_ORDER[@]}"; do
    if [[ $RUNNING_BEFORE != *" $name "* ]] && process_alive "$name"; then "${name}_stop"; fi
  done
  say "ops/stack: stack $STACK_NAME did not come up; what was started is stopped again"
  exit "$1"
}

stack_down() {
  local name began stopped=0
  began=$(now_ms)
  lock_stack
  for name in "${STOP_ORDER[@]}"; do
    process_alive "$name" || continue
    stopped=1
    if [[ $name == kafka* && ${#BROKERS[@]} != 1 ]]; then
      # Side by side: the last of several would wait for a majority that is gone.
      job_start service_down "$name"
    else
      jobs_wait
      service_down "$name"
    fi
  done
  jobs_wait
  if ((stopped)); then
    echo "stack $STACK_NAME is down after $(seconds_since "$began")"
  else
    echo "stack $STACK_NAME is down already"
  fi
}

# None of several answers before most of them run: all are started before any is waited for.
brokers_up() {
  local name node started begun=' '
  started=$(now_ms)
  for name in "${BROKERS[@]}"; do
    if ! process_alive "$name"; then
      begun+="$name "
      node_launch "$(broker_node "$name")"
    fi
  done
  for name in "${BROKERS[@]}"; do
    node=$(broker_node "$name")
    if [[ $begun == *" $name "* ]]; then
      node_wait "$node"
      printf '  %-10s up in %-12s%s\n' "$name" "$(seconds_since "$started")" "$("${name}_where")"
    else
      service_up "$name"
    fi
  done
}

broker_node() { # service -> node id
  local node=${1#kafka}
  echo "${node:-1}"
}

service_down() { # name
  local started
  started=$(now_ms)
  "${1}_stop"
  printf '  %-10s stopped in %s\n' "$1" "$(seconds_since "$started")"
}

# One service: not under the stack's lock, since a start may take long and faults do not wait.
service_named() { # name
  [[ " ${SERVICES[*]} " == *" $1 "* ]] ||
    die "$EXIT_USAGE" "no service $1 in stack $STACK_NAME: there are ${SERVICES[*]}"
  ports_load
  [[ -n ${KAFKA_PORT:-} ]] || die "$EXIT_SERVICE" "stack $STACK_NAME was never up: run ops/stack up"
}

stack_start() {
  service_named "$1"
  service_up "$1"
}

stack_stop() {
  service_named "$1"
  service_down "$1"
}

stack_kill() { service_named "$1" && process_signal "$1" KILL; }
stack_pause() { service_named "$1" && process_signal "$1" STOP; }
stack_resume() { service_named "$1" && process_signal "$1" CONT; }

stack_reset() {
  local name
  stack_down
  for name in "${SERVICES[@]}"; do "${name}_wipe"; done
  rm -rf "$LOG_DIR" "$RUN_DIR" "$STACK_DIR/brokers"
  echo "data of stack $STACK_NAME is gone"
}

# A table; the exit status says whether all are up.
stack_status() {
  local name pid down=0
  ports_load
  printf '%-11s %-9s %8s %7s %8s  %s\n' SERVICE STATE PID PORT RSS VERSION
  for name in "${SERVICES[@]}"; do
    local port=${name^^}_PORT
    if pid=$(process_pid "$name") && "${name}_answers_now"; then
      printf '%-11s %-9s %8s %7s %5s MB  %s\n' "$name" up "$pid" "${!port}" \
        "$(process_rss_mb "$pid")" "$("${name}_version")"
    else
      down=1
      printf '%-11s %-9s %8s %7s %8s  %s\n' "$name" "$([[ -n $pid ]] && echo 'no answer' || echo down)" \
        "${pid:--}" "${!port:--}" - "$("${name}_version")"
    fi
  done
  ((!down)) || return "$EXIT_SERVICE"
}

stack_logs() { # [service] [-f]
  local follow=() names=() argument
  for argument in "$@"; do
    if [[ $argument == -f ]]; then follow=(-f); else names+=("$LOG_DIR/$argument.log"); fi
  done
  ((${#names[@]})) || names=("$LOG_DIR"/*.log)
  [[ -e ${names[0]} ]] || die "$EXIT_USAGE" "no log ${names[0]}: services are ${SERVICES[*]}"
  exec tail -n 100 "${follow[@]}" "${names[@]}"
}
