-- EXPIRE KEYS AFTER INTERVAL '9 days'
SELECT count(DISTINCT bin) OVER (PARTITION BY card ORDER BY event_time) AS x FROM transactions
