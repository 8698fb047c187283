-- Where each projection stands in each partition, in the same transaction as its rows.
CREATE TABLE {millrace}.checkpoint (
    projection  text        NOT NULL,
    generation  integer     NOT NULL,
    topic       text        NOT NULL,
    partition   integer     NOT NULL,
    topic_id    uuid        NOT NULL,
    epoch       bigint      NOT NULL,
    epoch_start bigint      NOT NULL,
    next_offset bigint      NOT NULL,
    updated_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, generation, topic, partition)
) WITH (fillfactor = 50);

-- Events that could not become rows, each with all later events of its stream behind it.
CREATE TABLE {millrace}.failed_event (
    projection    text        NOT NULL,
    generation    integer     NOT NULL,
    stream        text        NOT NULL,
    position      bigint      NOT NULL,
    topic         text        NOT NULL,
    partition     integer     NOT NULL,
    kafka_offset  bigint      NOT NULL,
    event_type    text        NOT NULL,
    event_data    bytea       NOT NULL,
    error_message text        NOT NULL,
    attempts      integer     NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (projection, generation, topic, stream, position)
);

-- Which tables a projection writes, and which code they were made by.
CREATE TABLE {millrace}.projection (
    name        text        NOT NULL,
    generation  integer     NOT NULL,
    state       text        NOT NULL CHECK (state IN ('live', 'building', 'retired')),
    version     integer     NOT NULL,
    tables_hash text        NOT NULL,
    created_at  timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (name, generation)
);
CREATE UNIQUE INDEX projection_live ON {millrace}.projection (name) WHERE state = 'live';
