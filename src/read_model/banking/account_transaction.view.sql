CREATE OR REPLACE VIEW {domain}.account_transaction AS
SELECT
    transaction_id, account_id, event_type, type, amount, fee, currency, occurred_at,
    description, reference, counterparty_account, balance_after, version
FROM {schema}.account_transaction;
COMMENT ON VIEW {domain}.account_transaction IS
    'Each movement of money; a correction''s amount is signed, a reversal''s fee negative';
