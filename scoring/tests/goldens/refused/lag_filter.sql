-- EXPIRE KEYS AFTER INTERVAL '9 days'
SELECT lag(amount_minor) FILTER (WHERE amount_minor > 1) OVER (PARTITION BY card ORDER BY event_time) AS x FROM transactions
