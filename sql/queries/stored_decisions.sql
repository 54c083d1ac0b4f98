-- Every stored decision with its transaction's place in the log: for reconciliation.
SELECT transaction_id AS id, source_partition, source_offset
FROM decisions
