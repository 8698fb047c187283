# shellcheck shell=bash
# What ops/demo asks the running system, and how it shows the answers.

# One date for all its uses, even if midnight passes meanwhile.
DAY=$(date -u -d yesterday +%F)
banking_day() { "$REPO/ops/demo.d/banking-day" "$@" --date "$DAY"; } # openings|business|transfers, options...

sql() { # query, options of psql...
  local query=$1
  shift
  "$(pg_bin)/psql" -X -q -v ON_ERROR_STOP=1 "$@" -c "$query" "$MILLRACE_POSTGRES_URL"
}

clickhouse() { # query
  curl -sS --fail-with-body -H "X-ClickHouse-User: $MILLRACE_CLICKHOUSE_USER" \
    -H "X-ClickHouse-Key: $MILLRACE_CLICKHOUSE_PASSWORD" --data-binary "$1" \
    "$MILLRACE_CLICKHOUSE_URL/?database=$MILLRACE_CLICKHOUSE_DATABASE"
}

show_balances() {
  echo
  echo 'Postgres, banking.account_summary: the ten largest accounts in USD'
  sql "SELECT account_id, account_type, currency, status, current_balance, total_deposits,
              total_withdrawals, total_transfers_out, total_fees, version
         FROM banking.account_summary WHERE currency = 'USD'
        ORDER BY current_balance DESC, account_id LIMIT 10"
}

show_volumes() {
  echo 'ClickHouse, banking_volume_hour: the money that moved, hour by hour'
  clickhouse "SELECT formatDateTime(hour, '%F %H:00') AS from, currency, sum(events) AS events,
      sumIf(amount, event_type IN ('AccountCreated', 'MoneyDeposited')) AS deposited,
      sumIf(amount, event_type = 'MoneyWithdrawn') AS withdrawn,
      sumIf(amount, event_type = 'MoneyTransferred') AS transferred
    FROM banking_volume_hour GROUP BY from, currency ORDER BY from DESC, currency LIMIT 24
    FORMAT PrettyCompactMonoBlock
    SETTINGS output_format_pretty_row_numbers = 0, output_format_decimal_trailing_zeros = 1,
      output_format_pretty_single_large_number_tip_threshold = 0"
  echo
}

show_transfers() {
  echo
  echo 'Postgres, banking.transfer: what became of the money on its way'
  sql "SELECT state, currency, count(*) AS transfers, sum(amount) AS amount, min(reason) AS reason
         FROM banking.transfer GROUP BY state, currency ORDER BY state, currency"
  "$MILLRACE" sagas list
}

# The day is made so that it is known which commands succeed, and each of those is one event.
check_counts() {
  local day expected found
  day=$(banking_day openings --counts)
  expected=$(printf '%s\n%s\n%s\n' "$day" "$(banking_day business --counts)" "$(banking_day transfers --counts)" |
    "$PYTHON" -c 'import json, sys; print(sum(json.loads(line)["accepted"] for line in sys.stdin))')
  found=$(clickhouse "SELECT count() FROM event WHERE aggregate = 'account'
    AND startsWith(aggregate_id, '$(banking_day openings | head -c 10)')
    AND event_type IN ('AccountCreated', 'MoneyDeposited', 'MoneyWithdrawn', 'MoneyTransferred',
      'AccountFrozen', 'AccountUnfrozen')")
  echo "$expected commands should have been accepted, $found events say that they were"
  [[ $expected == "$found" ]] || die 1 'some commands are missing, or happened twice'
}

# Every row of both tables, in an order that no plan can change. Left out is the one column that is
# counted when it is read, up to that very moment.
checksum_of_postgres() {
  # 0 and 0.00 are the same number: how many zeros stand at its end depends on how it was added up.
  sql "WITH rows AS (
         SELECT 1 AS part, account_id AS id, to_jsonb(t) - 'transaction_count_30_days' AS row
           FROM banking.account_summary t
          UNION ALL SELECT 2, transaction_id::text, to_jsonb(t) FROM banking.account_transaction t
          UNION ALL SELECT 3, transfer_id::text, to_jsonb(t) FROM banking.transfer t)
       SELECT md5(string_agg(regexp_replace(row::text,
                '(\.[0-9]*[1-9])0+(?=[,}])|\.0+(?=[,}])', '\1', 'g'), E'\n' ORDER BY part, id))
         FROM rows" -A -t
}

rows_of_postgres() {
  sql "SELECT (SELECT count(*) FROM banking.account_summary) || ' accounts, ' ||
              (SELECT count(*) FROM banking.account_transaction) || ' transactions'" -A -t
}

# Prints what is still to be done, nothing once all groups have caught up. The handler's groups must
# be there at all: before the first commit there is no lag to see.
lag() { # groups that have to be there...
  "$MILLRACE" status --json 2>/dev/null | "$PYTHON" -c '
import json, sys
groups = {group["group"]: group for group in json.load(sys.stdin)["groups"]}
waiting = [name for name in sys.argv[1:] if name not in groups]
behind = {name: group.get("lag_events") for name, group in groups.items()}
waiting += [f"{name} {lag}" for name, lag in sorted(behind.items()) if lag != 0]
print(", ".join(waiting))
' "$@" 2>/dev/null
}

wait_for_lag_zero() { # seconds, groups...
  local limit=$(($(now_ms) + $1 * 1000)) left=unknown
  shift
  while true; do
    serve_alive || return 1
    # A snapshot is not enough: nothing may be left twice in a row.
    if left=$(lag "$@") && [[ -z $left ]] && sleep 0.3 && left=$(lag "$@") && [[ -z $left ]]; then
      return
    fi
    (($(now_ms) < limit)) || die 1 "still behind: ${left:-millrace status does not answer}"
    sleep 0.3
  done
}
