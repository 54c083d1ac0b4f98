-- EXPIRE KEYS AFTER ninety days
SELECT count(*) OVER (PARTITION BY card ORDER BY event_time) AS x FROM transactions
