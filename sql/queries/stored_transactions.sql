-- Every stored transaction with its place in the log: for reconciliation.
SELECT id, source_partition, source_offset
FROM transactions
