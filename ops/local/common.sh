# shellcheck shell=bash
# Paths, words and clocks that every script here shares. Sourced, never run.

set -euo pipefail
export LC_ALL=C.UTF-8

# A shell without job control starts `ops/demo &` with SIGINT ignored, and bash can never trap what was
# ignored when it began: begin again with the default, so that SIGINT stops us in any case.
if [[ -z ${SIGINT_IS_RESET:-} && -r /proc/$$/status ]] && env --default-signal=INT true 2>/dev/null; then
  ignored=$(grep SigIgn: /proc/$$/status)
  if ((16#${ignored##*[[:space:]]} & 2)); then
    SIGINT_IS_RESET=1 exec env --default-signal=INT bash "$0" "$@"
  fi
fi
unset SIGINT_IS_RESET ignored

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
LOCAL=$REPO/ops/local
# shellcheck source=ops/local/versions.env
source "$LOCAL/versions.env"

EXIT_USAGE=2
EXIT_SERVICE=3

say() { printf '%s\n' "$*" >&2; }

die() { # status text...
  local status=$1
  shift
  printf 'ops/%s: %s\n' "${0##*/}" "$*" >&2
  exit "$status"
}

now_ms() { # milliseconds of the wall clock, without a process
  local now=$EPOCHREALTIME
  printf '%s' "$(((${now%.*} * 1000) + 10#${now#*.} / 1000))"
}

seconds_since() { # start in ms -> "1.2 s"
  local ms=$(($(now_ms) - $1))
  printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# Names of folders and of databases are made from it, so it is kept plain.
STACK_NAME=${MILLRACE_STACK_NAME:-main}
[[ $STACK_NAME =~ ^[a-z][a-z0-9_-]{0,30}$ && $STACK_NAME != cache ]] ||
  die "$EXIT_USAGE" "MILLRACE_STACK_NAME=$STACK_NAME is no name for a stack: take lower-case letters and digits"

MILLRACE_HOME=${MILLRACE_HOME:-$REPO/.millrace}
[[ $MILLRACE_HOME == /* ]] || MILLRACE_HOME=$PWD/$MILLRACE_HOME
CACHE_DIR=$MILLRACE_HOME/cache
STACK_DIR=$MILLRACE_HOME/$STACK_NAME
RUN_DIR=$STACK_DIR/run
LOG_DIR=$STACK_DIR/log
# The program reads the main stack's settings from the place that its documentation names.
STACK_ENV=$STACK_DIR/stack.env
[[ $STACK_NAME != main ]] || STACK_ENV=$MILLRACE_HOME/stack.env

# The parts of this folder belong to this stack alone while the descriptor is open. Services are
# started without it, so the lock ends with the script however that ends.
lock_stack() {
  mkdir -p "$STACK_DIR"
  exec 9>"$STACK_DIR/lock"
  flock -n 9 && return
  say "another command is at work on stack $STACK_NAME: waiting for it"
  flock -w 600 9 || die "$EXIT_SERVICE" "the other command on stack $STACK_NAME does not end"
}

# A stack stays of the kind it was started as, even if a Docker daemon turns up later.
stack_kind() {
  local kind=${MILLRACE_STACK:-}
  [[ -n $kind ]] || kind=$(cat "$STACK_DIR/kind" 2>/dev/null || true)
  if [[ -z $kind ]]; then
    kind=local
    if timeout 5 docker compose version && timeout 5 docker info; then kind=docker; fi >/dev/null 2>&1
  fi
  case $kind in
  local | docker) echo "$kind" ;;
  *) die "$EXIT_USAGE" "MILLRACE_STACK=$kind: it is local or docker" ;;
  esac
}

# How many Kafka nodes the stack has; its data are made for that many.
stack_brokers() { cat "$STACK_DIR/brokers" 2>/dev/null || echo 1; }

brokers_choose() { # kind [--brokers count]
  local kind=$1 count
  shift
  (($#)) || return 0
  count=${2:-}
  [[ $# == 2 && $1 == --brokers && $count == [13] ]] ||
    die "$EXIT_USAGE" "ops/stack up takes --brokers 1 or --brokers 3, and nothing else"
  [[ $kind == local || $count == 1 ]] ||
    die "$EXIT_USAGE" "three brokers run as plain processes only: set MILLRACE_STACK=local"
  if [[ -d $STACK_DIR/kafka && $count != "$(stack_brokers)" ]]; then
    die "$EXIT_USAGE" "stack $STACK_NAME has data of $(stack_brokers) broker(s): run ops/stack reset first"
  fi
  mkdir -p "$STACK_DIR"
  echo "$count" >"$STACK_DIR/brokers"
}

# Runs a function as a process group of its own, so that a signal to this script is handled at once
# and ends everything that the function has running (a plain child would be waited for first).
JOBS=()
job_start() { # function args...
  set -m
  (
    set +m
    trap - INT TERM HUP EXIT
    "$@"
  ) </dev/null &
  JOBS+=($!)
  set +m
}

# Waits for all jobs; when one fails the others are ended and its status is given.
jobs_wait() {
  local status=0 pid
  for pid in "${JOBS[@]}"; do
    wait "$pid" || { status=$? && break; }
  done
  ((status == 0)) || jobs_kill
  JOBS=()
  return "$status"
}

# Ends all jobs and waits until nothing of them is left: they hold our lock, too.
jobs_kill() {
  local pid pids
  # Bash's own list: a signal may come between the fork and our note of it.
  pids=$(jobs -p)
  for pid in $pids; do group_end "$pid"; done
  for pid in $pids; do wait "$pid" 2>/dev/null || true; done
  JOBS=()
}

group_end() { # process group: asked to end, after five seconds made to
  local limit=$(($(now_ms) + 5000))
  kill -TERM -- "-$1" 2>/dev/null || return 0
  while group_alive "$1" && (($(now_ms) < limit)); do sleep 0.02; done
  kill -KILL -- "-$1" 2>/dev/null || return 0
  while group_alive "$1" && (($(now_ms) < limit + 5000)); do sleep 0.02; done
}

group_alive() { # process group; zombies do not count: not every container's first process reaps
  local file line stat
  for file in /proc/[0-9]*/stat; do
    { read -r line <"$file"; } 2>/dev/null || continue
    read -ra stat <<<"${line##*) }"
    if [[ ${stat[2]:-} == "$1" && ${stat[0]:-Z} != [ZX] ]]; then return 0; fi
  done
  return 1
}
