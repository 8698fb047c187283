-- How far each stream's rows have come, also where its row is hidden: what a reader waits for.
CREATE OR REPLACE VIEW {domain}.stream_version AS
SELECT 'account'::text AS aggregate, account_id AS stream, version
FROM {schema}.account_summary
UNION ALL
SELECT 'transfer'::text AS aggregate, transfer_id AS stream, version
FROM {schema}.transfer;
COMMENT ON VIEW {domain}.stream_version IS
    'The last event of each account and transfer that the rows here have seen';
