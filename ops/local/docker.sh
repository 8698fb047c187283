# shellcheck shell=bash
# The same stack as containers: docker-compose.yml, one compose project a stack.

# shellcheck source=ops/local/ports.sh
source "$LOCAL/ports.sh"

service_runs() { [[ -n $(compose ps -q --status running "$1" 2>/dev/null) ]]; }

compose() {
  KAFKA_PORT=${KAFKA_PORT:-9092} REGISTRY_PORT=${REGISTRY_PORT:-8081} \
    POSTGRES_PORT=${POSTGRES_PORT:-5432} CLICKHOUSE_PORT=${CLICKHOUSE_PORT:-8123} \
    CLICKHOUSE_NATIVE_PORT=${CLICKHOUSE_NATIVE_PORT:-9000} \
    docker compose --project-name "millrace-$STACK_NAME" --file "$REPO/docker-compose.yml" "$@"
}

stack_up() {
  local began
  began=$(now_ms)
  lock_stack
  ports_choose
  echo "stack $STACK_NAME (docker compose)"
  compose up --detach --wait --wait-timeout 180 || {
    compose logs --tail 15 >&2 || true
    compose stop >/dev/null 2>&1 || true
    die "$EXIT_SERVICE" "stack $STACK_NAME did not come up: the services' last lines are above"
  }
  stack_env_write
  echo "stack $STACK_NAME is up in $(seconds_since "$began"); settings in $STACK_ENV"
}

stack_down() {
  lock_stack
  ports_load
  compose stop
  compose rm --force
  echo "stack $STACK_NAME is down"
}

stack_reset() {
  lock_stack
  ports_load
  compose down --volumes --remove-orphans
  echo "data of stack $STACK_NAME is gone"
}

stack_start() { ports_load && compose start "$1"; }
stack_stop() { ports_load && compose stop "$1"; }
stack_kill() { ports_load && compose kill --signal SIGKILL "$1"; }
stack_pause() { ports_load && compose pause "$1"; }
stack_resume() { ports_load && compose unpause "$1"; }

stack_status() {
  ports_load
  compose ps --all
  local running
  running=$(compose ps -q --status running | wc -l)
  ((running == $(compose config --services | wc -l))) || return "$EXIT_SERVICE"
}

stack_logs() {
  ports_load
  exec docker compose --project-name "millrace-$STACK_NAME" --file "$REPO/docker-compose.yml" \
    logs --tail 100 "$@"
}
