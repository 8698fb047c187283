# shellcheck shell=bash
# ClickHouse: the server code out of the chdb-core wheel. See clickhouse/launch.py.

CH_DIR=$STACK_DIR/clickhouse

clickhouse_start() {
  mkdir -p "$CH_DIR"
  process_start clickhouse "$CLICKHOUSE_VENV/bin/python" "$LOCAL/clickhouse/launch.py" \
    --home "$CH_DIR" --config "$LOCAL/clickhouse/config.xml" --users "$LOCAL/clickhouse/users.xml" \
    --http-port "$CLICKHOUSE_PORT" --tcp-port "$CLICKHOUSE_NATIVE_PORT"
  wait_ready clickhouse 60 clickhouse_answers
}

clickhouse_answers() { [[ $(curl -fsS -m 2 "http://127.0.0.1:$CLICKHOUSE_PORT/ping") == Ok. ]]; }

clickhouse_stop() { process_stop clickhouse TERM 25; }
clickhouse_wipe() { rm -rf "$CH_DIR"; }
clickhouse_where() { echo "127.0.0.1:$CLICKHOUSE_PORT (native $CLICKHOUSE_NATIVE_PORT)"; }
clickhouse_version() { echo "$CLICKHOUSE_VERSION"; }
