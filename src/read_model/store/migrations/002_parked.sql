-- What it takes to apply a parked event later: the event as it stands in the log, and who waits for
-- it. An event is known by its place in the log; its stream's name is here for people (a NUL in it,
-- which Postgres has no text for, is written as the sign for one).
ALTER TABLE {millrace}.failed_event
    ADD COLUMN event_key            bytea  NOT NULL,
    ADD COLUMN event_headers        text   NOT NULL,
    ADD COLUMN event_time_ms        bigint NOT NULL,
    ADD COLUMN error_code           text   NOT NULL,
    ADD COLUMN redrive_requested_at timestamptz,
    DROP CONSTRAINT failed_event_pkey,
    ADD PRIMARY KEY (projection, generation, topic, partition, kafka_offset);
CREATE INDEX failed_event_stream ON {millrace}.failed_event
    (projection, generation, topic, partition, stream, kafka_offset);
CREATE INDEX failed_event_requested ON {millrace}.failed_event (projection, generation)
    WHERE redrive_requested_at IS NOT NULL;
