CREATE OR REPLACE VIEW {database}.banking_deposits_withdrawals_day AS
SELECT
    toStartOfDay(occurred_at) AS day,
    currency,
    sumIf(amount, event_type IN ('AccountCreated', 'MoneyDeposited')) AS deposits,
    sumIf(amount, event_type = 'MoneyWithdrawn') AS withdrawals,
    deposits - withdrawals AS net
FROM {database}.banking
WHERE aggregate = 'account'
    AND event_type IN ('AccountCreated', 'MoneyDeposited', 'MoneyWithdrawn')
GROUP BY day, currency
ORDER BY day, currency
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Deposits (opening ones included) against withdrawals per day and currency'
