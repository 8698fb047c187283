CREATE TABLE IF NOT EXISTS {database}.{table} (
    aggregate       LowCardinality(String),
    aggregate_id    String,
    sequence        UInt64,
    event_id        UUID,
    event_type      LowCardinality(String),
    schema_version  UInt16,
    occurred_at     DateTime64(6, 'UTC') CODEC(Delta, LZ4),
    user_id         String,
    amount          Decimal(38, 8),
    currency        LowCardinality(String),
    correlation_id  String,
    causation_id    String,
    command_id      UUID,
    kafka_partition Int32,
    kafka_offset    Int64 CODEC(Delta, LZ4),
    payload         String,
    -- For the panels: what was charged (given back: negative), the balance that the event left,
    -- and, on an opening, the account's type.
    fee             Decimal(38, 8),
    balance_after   Nullable(Decimal(38, 8)),
    account_type    LowCardinality(String),
    -- Where the row was read: with the offset, the projection's checkpoint.
    topic_id        UUID,
    epoch           UInt32
)
ENGINE = ReplacingMergeTree(epoch)
PARTITION BY (aggregate, kafka_partition)
ORDER BY (aggregate, aggregate_id, sequence)
SETTINGS
    -- Without it a block that is sent twice is written twice: its token is not looked at.
    non_replicated_deduplication_window = 10000,
    -- Kafka's offset is committed on the acknowledgement: then it must be on the disk.
    fsync_after_insert = 1,
    fsync_part_directory = 1
COMMENT '{made_by}'
