CREATE OR REPLACE VIEW {database}.banking_volume_hour AS
SELECT
    toStartOfHour(occurred_at) AS hour,
    currency,
    event_type,
    count() AS events,
    sum(amount) AS amount
FROM {database}.banking
WHERE aggregate = 'account' AND currency != '' AND event_type != 'TransferSettled'
GROUP BY hour, currency, event_type
ORDER BY hour, currency, event_type
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Money moved per hour, by currency and kind of event'
