CREATE OR REPLACE VIEW {database}.banking_volume_day AS
SELECT
    toStartOfDay(occurred_at) AS day,
    currency,
    event_type,
    count() AS events,
    sum(amount) AS amount
FROM {database}.banking
WHERE aggregate = 'account' AND currency != '' AND event_type != 'TransferSettled'
GROUP BY day, currency, event_type
ORDER BY day, currency, event_type
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Money moved per day, by currency and kind of event'
