CREATE OR REPLACE VIEW {database}.banking_largest_movers AS
SELECT
    aggregate_id AS account_id,
    any(user_id) AS owner,
    currency,
    count() AS events,
    sum(abs(amount)) AS moved
FROM {database}.banking
WHERE aggregate = 'account' AND currency != '' AND event_type != 'TransferSettled'
    AND occurred_at > now() - INTERVAL 30 DAY
GROUP BY account_id, currency
ORDER BY moved DESC, account_id
LIMIT 100
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'The hundred accounts that moved most money in the last 30 days'
