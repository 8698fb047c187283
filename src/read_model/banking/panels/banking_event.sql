CREATE OR REPLACE VIEW {database}.banking_event AS
SELECT
    'banking' AS domain, aggregate, aggregate_id, sequence, event_id, event_type, schema_version,
    occurred_at, user_id, amount, currency, correlation_id, causation_id, command_id,
    kafka_partition, kafka_offset, payload, topic_id
FROM {database}.banking
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT 'Every event of banking, once each'
