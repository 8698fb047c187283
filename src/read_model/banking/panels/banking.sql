CREATE OR REPLACE VIEW {database}.banking AS
SELECT * FROM {database}.{table} FINAL
SETTINGS do_not_merge_across_partitions_select_final = 1
COMMENT '{in_use}'
