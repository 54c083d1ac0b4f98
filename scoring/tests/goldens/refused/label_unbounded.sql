-- EXPIRE KEYS AFTER INTERVAL '90 days'
SELECT count(*) FILTER (WHERE fraud) OVER (PARTITION BY card ORDER BY event_time) AS x
FROM transactions
