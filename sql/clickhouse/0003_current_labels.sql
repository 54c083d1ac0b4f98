-- The label that counts for each transaction: the latest, and of two at the same millisecond the one later
-- on the topic. All labels of a transaction are on one partition.
CREATE VIEW IF NOT EXISTS current_labels AS
SELECT
    transaction_id,
    argMax(merchant_id, (labels.labelled_at, log_offset)) AS merchant_id,
    argMax(verdict, (labels.labelled_at, log_offset)) AS verdict,
    argMax(source, (labels.labelled_at, log_offset)) AS source,
    max(labels.labelled_at) AS labelled_at
FROM labels
GROUP BY transaction_id;
