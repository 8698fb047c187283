# shellcheck shell=bash
# Which port each service gets: the one it had before, else its usual one, else the next free one.

PORT_KEYS=(KAFKA_PORT KAFKA_CONTROLLER_PORT REGISTRY_PORT POSTGRES_PORT CLICKHOUSE_PORT
  CLICKHOUSE_NATIVE_PORT HTTP_PORT)
(($(stack_brokers) == 1)) ||
  PORT_KEYS+=(KAFKA2_PORT KAFKA2_CONTROLLER_PORT KAFKA3_PORT KAFKA3_CONTROLLER_PORT)
declare -A PORT_DEFAULT=([KAFKA_PORT]=9092 [KAFKA_CONTROLLER_PORT]=9093 [REGISTRY_PORT]=8081
  [KAFKA2_PORT]=9094 [KAFKA2_CONTROLLER_PORT]=9095 [KAFKA3_PORT]=9096 [KAFKA3_CONTROLLER_PORT]=9097
  [POSTGRES_PORT]=5432 [CLICKHOUSE_PORT]=8123 [CLICKHOUSE_NATIVE_PORT]=9000 [HTTP_PORT]=8080)
declare -A PORT_SERVICE=([KAFKA_PORT]=kafka [KAFKA_CONTROLLER_PORT]=kafka [REGISTRY_PORT]=registry
  [KAFKA2_PORT]=kafka2 [KAFKA2_CONTROLLER_PORT]=kafka2
  [KAFKA3_PORT]=kafka3 [KAFKA3_CONTROLLER_PORT]=kafka3
  [POSTGRES_PORT]=postgres [CLICKHOUSE_PORT]=clickhouse [CLICKHOUSE_NATIVE_PORT]=clickhouse
  [HTTP_PORT]=serve)
# Other stacks start looking here, out of the way of whatever else uses the well-known ports.
PORT_STEP_OF_OTHER_STACKS=10000
PORTS_FILE=$STACK_DIR/ports.env

ports_load() {
  local key value
  [[ -r $PORTS_FILE ]] || return 0
  while IFS='=' read -r key value; do
    if [[ -n ${PORT_DEFAULT[$key]:-} && $value =~ ^[0-9]+$ ]]; then printf -v "$key" %s "$value"; fi
  done <"$PORTS_FILE"
}

port_listeners() { # port -> inodes of the sockets that listen on it
  local hex
  printf -v hex %04X "$1"
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    while read -r _ address _ state _ _ _ _ _ inode _; do
      if [[ $state == 0A && ${address##*:} == "$hex" ]]; then echo "$inode"; fi
    done
}

port_taken() { [[ -n $(port_listeners "$1") ]]; }

# The program's own HTTP port stays its own while a `millrace serve` of this stack listens there.
port_held_by_millrace() { # port
  local inode process descriptor
  inode=$(port_listeners "$1" | head -n 1)
  for process in /proc/[0-9]*; do
    [[ $(cat "$process/comm" 2>/dev/null) == millrace ]] || continue
    for descriptor in "$process"/fd/*; do
      [[ $(readlink "$descriptor" 2>/dev/null) != "socket:[$inode]" ]] || return 0
    done
  done
  return 1
}

ports_of_other_stacks() {
  local file
  for file in "$MILLRACE_HOME"/*/ports.env; do
    [[ $file == "$PORTS_FILE" || ! -r $file ]] || grep -oE '[0-9]+$' "$file" || true
  done
}

# Sets every port variable and remembers them. Two stacks choose one after the other.
ports_choose() {
  local key port wanted others step=0 chosen=' ' changed=0
  mkdir -p "$CACHE_DIR"
  exec 8>"$CACHE_DIR/ports.lock"
  flock 8
  ports_load
  [[ $STACK_NAME == main ]] || step=$PORT_STEP_OF_OTHER_STACKS
  others=" $(ports_of_other_stacks | tr '\n' ' ')"
  for key in "${PORT_KEYS[@]}"; do
    # What other services of this stack usually take is left to them.
    chosen+="$([[ -n ${!key:-} ]] && echo "${!key}" || echo $((PORT_DEFAULT[$key] + step))) "
  done
  for key in "${PORT_KEYS[@]}"; do
    wanted=${!key:-$((PORT_DEFAULT[$key] + step))}
    port=$wanted
    if ! port_is_ours "$key" "$port"; then
      while port_taken "$port" || [[ $others == *" $port "* && -z ${!key:-} ]] ||
        [[ $port != "$wanted" && $chosen == *" $port "* ]]; do
        port=$((port + 1))
      done
    fi
    if [[ $port != "$wanted" ]]; then
      say "port $wanted is taken: ${PORT_SERVICE[$key]} of stack $STACK_NAME gets $port"
      chosen+="$port "
    fi
    if [[ ${!key:-} != "$port" ]]; then changed=1; fi
    printf -v "$key" %s "$port"
  done
  if ((changed)); then
    for key in "${PORT_KEYS[@]}"; do echo "$key=${!key}"; done >"$PORTS_FILE.new"
    mv "$PORTS_FILE.new" "$PORTS_FILE"
  fi
  exec 8>&-
}

port_is_ours() { # key port
  case ${PORT_SERVICE[$1]} in
  serve) [[ -n ${!1:-} ]] && port_held_by_millrace "$2" ;;
  *) [[ -n ${!1:-} ]] && service_runs "${PORT_SERVICE[$1]}" ;;
  esac
}

# host:port of every broker, with commas between them.
brokers_list() {
  local list="127.0.0.1:$KAFKA_PORT"
  (($(stack_brokers) == 1)) || list+=",127.0.0.1:$KAFKA2_PORT,127.0.0.1:$KAFKA3_PORT"
  echo "$list"
}

stack_env_write() {
  mkdir -p "$(dirname "$STACK_ENV")"
  cat >"$STACK_ENV.new" <<END
# Written by ops/stack: where stack $STACK_NAME answers.
MILLRACE_KAFKA_BROKERS=$(brokers_list)
MILLRACE_REGISTRY_URL=http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7
MILLRACE_POSTGRES_URL=postgres://millrace:millrace@127.0.0.1:$POSTGRES_PORT/millrace
MILLRACE_CLICKHOUSE_URL=http://127.0.0.1:$CLICKHOUSE_PORT
MILLRACE_CLICKHOUSE_DATABASE=millrace
MILLRACE_CLICKHOUSE_USER=millrace
MILLRACE_CLICKHOUSE_PASSWORD=millrace
MILLRACE_HTTP_ADDR=127.0.0.1:$HTTP_PORT
END
  (($(stack_brokers) == 1)) || echo "MILLRACE_KAFKA_REPLICATION=$(stack_brokers)" >>"$STACK_ENV.new"
  mv "$STACK_ENV.new" "$STACK_ENV"
}
