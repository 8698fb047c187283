# shellcheck shell=bash
# What ops/test and ops/demo have in common: they run one after the other in a folder, say how long
# each step took, hold a stack while they live, and leave nothing running.

SESSION=${0##*/}
SESSION_GROUPS=$STACK_DIR/$SESSION.groups
SESSION_GUARD=

session_begin() {
  mkdir -p "$STACK_DIR"
  exec 6>"$STACK_DIR/$SESSION.lock"
  if ! flock -n 6; then
    say "another ops/$SESSION is at work in $STACK_DIR: waiting for it"
    flock 6
  fi
  : >"$SESSION_GROUPS"
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  trap session_end EXIT
}

# Everything that was started is ended; the script's own part is `cleanup`.
session_end() {
  local status=$?
  trap '' INT TERM HUP
  set +e
  jobs_kill
  cleanup
  if [[ -n $SESSION_GUARD ]]; then kill -KILL -- "-$SESSION_GUARD" 2>/dev/null; fi
  rm -f "$SESSION_GROUPS"
  exit "$status"
}

# From here on a guard stops the stack (`down`) or leaves it (`keep`) should we be killed.
session_guard() { # down|keep
  setsid "$LOCAL/guard.sh" "$$" "$(process_identity "$$")" "$SESSION_GROUPS" "$1" \
    </dev/null >/dev/null 2>&1 5>&- 6>&- &
  SESSION_GUARD=$!
  disown # It is no job of ours: it ends last.
}

# The guard knows a process by its leader, which is its group as well.
guarded() { # pid
  printf '%s %s\n' "$1" "$(process_identity "$1")" >>"$SESSION_GROUPS"
}

step() { # what it does, command...
  local name=$1 started
  shift
  started=$(now_ms)
  echo "== $name"
  job_start "$@"
  guarded "${JOBS[-1]}" || true
  local status=0
  jobs_wait || status=$?
  ((status == 0)) || die "$status" "$name failed after $(seconds_since "$started")"
  echo "== $name: $(seconds_since "$started")"
}

# Packages in the foreground: dpkg must not be killed in the middle. An interrupt waits for it.
install_what_is_missing() {
  local started
  started=$(now_ms)
  echo '== install what is missing'
  "$LOCAL/install.sh" packages
  job_start "$LOCAL/install.sh" services
  jobs_wait || exit "$EXIT_SERVICE"
  echo "== install what is missing: $(seconds_since "$started")"
}

# The stack's settings and no others, so that nothing of the caller's environment points elsewhere.
use_stack_env() { # names that the caller may set otherwise
  local name keep=" MILLRACE_HOME MILLRACE_STACK MILLRACE_STACK_NAME $* " line
  for name in $(compgen -A export | grep '^MILLRACE_' || true); do
    [[ $keep == *" $name "* ]] || unset "$name"
  done
  while IFS= read -r line; do
    [[ $line == MILLRACE_* ]] || continue
    name=${line%%=*}
    if [[ -z ${!name:-} ]]; then export "${line?}"; fi
  done <"$STACK_ENV"
}

# Builds happen with the packages that were just installed and the toolchain that is there.
need_cargo() {
  command -v cargo >/dev/null || PATH=$PATH:$HOME/.cargo/bin
  command -v cargo >/dev/null || die "$EXIT_SERVICE" "no cargo: install a Rust toolchain (https://rustup.rs)"
}
