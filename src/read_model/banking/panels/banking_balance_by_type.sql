CREATE OR REPLACE VIEW {database}.banking_balance_by_type AS
SELECT
    account_type,
    currency,
    count() AS accounts,
    sum(balance) AS balance
FROM (
    SELECT
        aggregate_id,
        anyIf(table.account_type, table.account_type != '') AS account_type,
        anyIf(table.currency, table.currency != '') AS currency,
        argMaxIf(assumeNotNull(balance_after), sequence, balance_after IS NOT NULL) AS balance
    FROM {database}.banking AS table
    WHERE aggregate = 'account'
    GROUP BY aggregate_id
)
GROUP BY account_type, currency
ORDER BY account_type, currency
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Accounts and what they hold, by account type and currency'
