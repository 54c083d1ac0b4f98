-- The alert one transaction raised, if any.
SELECT id, raised_at, severity
FROM alerts
WHERE transaction_id = {id:String}
ORDER BY id
