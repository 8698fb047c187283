CREATE OR REPLACE VIEW {database}.banking_fees_hour AS
SELECT
    toStartOfHour(occurred_at) AS hour,
    currency,
    countIf(fee > 0) AS charged,
    countIf(fee < 0) AS given_back,
    sum(fee) AS fees
FROM {database}.banking
WHERE aggregate = 'account' AND fee != 0
GROUP BY hour, currency
ORDER BY hour, currency
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Fees per hour and currency, less those given back with reversed transfers'
