CREATE TABLE IF NOT EXISTS {database}.failed_event (
    `projection`  LowCardinality(String),
    generation    Int32,
    topic         LowCardinality(String),
    partition     Int32,
    kafka_offset  Int64,
    topic_id      UUID,
    epoch         UInt32,
    stream        String,
    position      UInt64,
    event_time_ms Int64,
    event_type    LowCardinality(String),
    event_key     String,
    event_data    String,
    event_headers String,
    error_code    LowCardinality(String),
    error_message String,
    attempts      UInt32,
    created_at    DateTime64(6, 'UTC') DEFAULT now64(6),
    -- Which of two rows about one event counts: four to an epoch (see the code).
    revision      UInt64,
    is_gone       UInt8
)
ENGINE = ReplacingMergeTree(revision, is_gone)
ORDER BY (projection, generation, topic, partition, kafka_offset)
SETTINGS
    -- What is parked is passed over by the rows' checkpoint: then it must be on the disk.
    fsync_after_insert = 1,
    fsync_part_directory = 1
COMMENT 'Events that could not become rows, each with all later events of its stream behind it'
