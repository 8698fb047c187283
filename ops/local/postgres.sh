# shellcheck shell=bash
# Postgres from Debian's package, on a data folder and a port of our own. The packaged cluster is
# left alone. No Unix socket: its path would have to fit into 107 bytes, wherever the clone lies.

PG_DIR=$STACK_DIR/postgres
PG_DATA=$PG_DIR/data
PG_PASSWORD_FILE=$PG_DIR/superuser.password

pg_bin() { # the newest installed version's folder
  local dir
  dir=$(printf '%s\n' /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
  [[ -x $dir/postgres ]] || dir=$(dirname "$(command -v postgres || echo /missing/postgres)")
  [[ -x $dir/postgres ]] || die "$EXIT_SERVICE" "no Postgres found in /usr/lib/postgresql/*/bin"
  printf '%s' "$dir"
}

# Sets PG_AS, the front of every command that has to run as an unprivileged user: Postgres refuses
# root. setpriv becomes the command (runuser would stay as its parent).
pg_as() {
  PG_AS=()
  ((EUID == 0)) || return 0
  PG_AS=(setpriv --reuid=postgres --regid=postgres --init-groups)
  # A clone under a private folder such as /root: that user may not pass through. It then gets the
  # one capability that lets it, instead of us opening the folder to everyone.
  if ! "${PG_AS[@]}" test -x "$PG_DATA" 2>/dev/null; then
    PG_AS+=(--inh-caps=+dac_override --ambient-caps=+dac_override --)
  fi
}

pg_configure() {
  local bin=$1 owner=$EUID log=$LOG_DIR/postgres-initdb.log
  ((EUID != 0)) || owner=postgres
  install -d -m 700 -o "$owner" "$PG_DIR" "$PG_DATA"
  pg_as
  if [[ ! -e $PG_DIR/.initialised ]]; then
    # Never initialised, or interrupted in the middle: from the start.
    find "$PG_DATA" -mindepth 1 -delete
    (umask 077 && head -c 18 /dev/urandom | base64 >"$PG_PASSWORD_FILE")
    chown "$owner" "$PG_PASSWORD_FILE"
    if ! (cd / && "${PG_AS[@]}" "$bin/initdb" -D "$PG_DATA" --username=postgres \
      --pwfile="$PG_PASSWORD_FILE" --auth-host=scram-sha-256 --auth-local=reject \
      --encoding=UTF8 --locale=C.UTF-8) >"$log" 2>&1; then
      say "ops/stack: initdb failed"
      log_tail postgres-initdb
      return "$EXIT_SERVICE"
    fi
    echo "include 'millrace.conf'" >>"$PG_DATA/postgresql.conf"
    touch "$PG_DIR/.initialised"
  fi
  cat >"$PG_DATA/millrace.conf" <<END
listen_addresses = '127.0.0.1'
port = $POSTGRES_PORT
unix_socket_directories = ''
max_connections = 200
shared_buffers = 256MB
max_wal_size = 2GB
checkpoint_timeout = 15min
timezone = 'UTC'
log_timezone = 'UTC'
# Rows and checkpoint commit together and are promised to be there: never traded for speed.
fsync = on
synchronous_commit = on
END
  chown "$owner" "$PG_DATA/millrace.conf"
}

# After a kill the data folder still names its old process, and Postgres takes a zombie for a living
# one (a container's first process may not reap). Once nothing works in the folder, the note goes.
pg_forget_killed() {
  local pid limit=$(($(now_ms) + 10000))
  [[ -e $PG_DATA/postmaster.pid ]] || return 0
  pid=$(head -n 1 "$PG_DATA/postmaster.pid")
  while process_identity "$pid" >/dev/null || pg_has_processes; do
    (($(now_ms) < limit)) || return 0 # Postgres itself then says what is wrong.
    sleep 0.1
  done
  rm -f "$PG_DATA/postmaster.pid"
}

pg_has_processes() { # A server's processes all stay in its data folder.
  local process
  for process in /proc/[0-9]*; do
    [[ $(readlink "$process/cwd" 2>/dev/null) != "$PG_DATA" ]] || return 0
  done
  return 1
}

postgres_start() {
  local bin
  bin=$(pg_bin)
  mkdir -p "$LOG_DIR"
  pg_configure "$bin"
  pg_forget_killed
  process_start postgres "${PG_AS[@]}" "$bin/postgres" -D "$PG_DATA"
  wait_ready postgres 60 "$bin/pg_isready" -q -h 127.0.0.1 -p "$POSTGRES_PORT"
  pg_create_role "$bin"
}

pg_create_role() {
  PGPASSWORD=$(<"$PG_PASSWORD_FILE") "$1/psql" -X -q -h 127.0.0.1 -p "$POSTGRES_PORT" -U postgres \
    -d postgres -v ON_ERROR_STOP=1 -f "$LOCAL/postgres/init.sql" >>"$LOG_DIR/postgres.log" 2>&1 || {
    say "ops/stack: role and database millrace could not be created in postgres"
    log_tail postgres
    return "$EXIT_SERVICE"
  }
}

# Fast shutdown, then immediate (its children go with it), then whatever is left.
postgres_stop() { process_stop postgres INT 20 QUIT 5; }
postgres_wipe() { rm -rf "$PG_DIR"; }
postgres_where() { echo "127.0.0.1:$POSTGRES_PORT"; }
postgres_version() { "$(pg_bin)/postgres" --version | grep -oE '[0-9]+\.[0-9]+' | head -n 1; }
