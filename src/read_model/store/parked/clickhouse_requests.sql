CREATE TABLE IF NOT EXISTS {database}.failed_event_request (
    `projection` LowCardinality(String),
    generation   Int32,
    topic        LowCardinality(String),
    partition    Int32,
    stream       String,
    requested_at SimpleAggregateFunction(max, DateTime64(6, 'UTC')),
    handled_at   SimpleAggregateFunction(max, DateTime64(6, 'UTC'))
)
ENGINE = AggregatingMergeTree
ORDER BY (projection, generation, topic, partition, stream)
COMMENT 'Which parked streams somebody wants tried again, and when that was last done'
