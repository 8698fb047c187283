-- One row an account, built from its stream alone. A row without a status is what an erased or
-- unknown beginning leaves behind: it keeps the version, and the view hides it.
CREATE TABLE {schema}.account_summary (
    account_id          text COLLATE "C" PRIMARY KEY,
    kafka_partition     integer     NOT NULL,
    user_id             text,
    account_type        text,
    currency            text,
    status              text,
    current_balance     numeric,
    pending_out         numeric     NOT NULL,
    created_at          timestamptz,
    last_transaction_at timestamptz,
    total_deposits      numeric     NOT NULL,
    total_withdrawals   numeric     NOT NULL,
    total_transfers_in  numeric     NOT NULL,
    total_transfers_out numeric     NOT NULL,
    total_fees          numeric     NOT NULL,
    -- The sequence of the event that made the row: 1, or events were missing.
    first_version       bigint      NOT NULL,
    version             bigint      NOT NULL,
    updated_at          timestamptz NOT NULL
) WITH (fillfactor = 70);
