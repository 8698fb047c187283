-- One row for each event that moves money. A stream's times never go back, so the key sorts as
-- the stream does and serves pages, the 30-day count and the last ten alike.
CREATE TABLE {schema}.account_transaction (
    account_id           text COLLATE "C" NOT NULL,
    occurred_at          timestamptz NOT NULL,
    version              bigint      NOT NULL,
    transaction_id       uuid        NOT NULL,
    kafka_partition      integer     NOT NULL,
    event_type           text        NOT NULL,
    type                 text        NOT NULL,
    amount               numeric     NOT NULL,
    fee                  numeric     NOT NULL,
    currency             text        NOT NULL,
    description          text        NOT NULL,
    reference            text,
    counterparty_account text,
    balance_after        numeric     NOT NULL,
    PRIMARY KEY (account_id, occurred_at, version)
);
