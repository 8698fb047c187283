CREATE OR REPLACE VIEW {domain}.transfer AS
SELECT
    transfer_id,
    state,
    from_account_id,
    to_account_id,
    amount,
    fee,
    currency,
    CASE WHEN is_parked THEN parked_because ELSE refusal END AS reason,
    -- Nothing is waited for once it has ended, or while it is parked.
    CASE WHEN state = 'PENDING' AND NOT is_parked THEN deadline END AS deadline,
    created_at,
    ended_at,
    version
FROM {schema}.transfer
WHERE state IS NOT NULL;
COMMENT ON VIEW {domain}.transfer IS
    'Transfers of money: PENDING, COMPLETED (both accounts know) or REVERSED (given back)';
COMMENT ON COLUMN {domain}.transfer.amount IS 'What arrives, without the fee';
COMMENT ON COLUMN {domain}.transfer.fee IS 'What the sender was charged; given back if REVERSED';
COMMENT ON COLUMN {domain}.transfer.reason IS
    'Why it is, or was, given back: the refusal''s code. Of a parked one: parked at its step, why';
COMMENT ON COLUMN {domain}.transfer.deadline IS
    'When it is looked after again if no answer has come; null if it has ended or is parked';
