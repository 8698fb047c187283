CREATE OR REPLACE VIEW {domain}.account_summary AS
SELECT
    s.account_id,
    s.user_id,
    s.account_type,
    s.currency,
    s.status,
    s.current_balance,
    CASE WHEN s.status = 'ACTIVE' THEN s.current_balance ELSE 0 END AS available_balance,
    s.pending_out,
    s.created_at,
    s.last_transaction_at,
    -- A true sliding window: counted when it is read.
    (SELECT count(*) FROM {schema}.account_transaction t
     WHERE t.account_id = s.account_id AND t.occurred_at > now() - interval '30 days'
    ) AS transaction_count_30_days,
    s.total_deposits,
    s.total_withdrawals,
    s.total_transfers_in,
    s.total_transfers_out,
    s.total_fees,
    s.status = 'ACTIVE' AS is_active,
    ARRAY(SELECT t.transaction_id::text FROM {schema}.account_transaction t
          WHERE t.account_id = s.account_id
          ORDER BY t.occurred_at DESC, t.version DESC LIMIT 10
    ) AS recent_transaction_ids,
    s.version,
    s.updated_at
FROM {schema}.account_summary s
WHERE s.status IS NOT NULL;
COMMENT ON VIEW {domain}.account_summary IS
    'Accounts: balances, totals, status, last ten transactions, version';

-- What was charged and not given back.
CREATE OR REPLACE VIEW {domain}.fee_ledger AS
SELECT currency, sum(total_fees) AS total
FROM {schema}.account_summary
WHERE status IS NOT NULL
GROUP BY currency;
COMMENT ON VIEW {domain}.fee_ledger IS 'Fees charged and not given back, by currency';
