-- One row a transfer, built from its own stream alone. A row without a state is what an erased or
-- unknown beginning leaves behind: it keeps the version, and the view hides it.
CREATE TABLE {schema}.transfer (
    transfer_id     text COLLATE "C" PRIMARY KEY,
    kafka_partition integer     NOT NULL,
    state           text,
    from_account_id text,
    to_account_id   text,
    amount          numeric,
    fee             numeric,
    currency        text,
    -- Why the receiver refused it for good.
    refusal         text,
    -- Whether nothing is sent until somebody looks after it, and why it was so last.
    is_parked       boolean,
    parked_because  text,
    deadline        timestamptz,
    created_at      timestamptz,
    ended_at        timestamptz,
    -- The sequence of the event that made the row: 1, or events were missing.
    first_version   bigint      NOT NULL,
    version         bigint      NOT NULL
) WITH (fillfactor = 70);
