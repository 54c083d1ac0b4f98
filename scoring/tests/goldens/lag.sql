-- EXPIRE KEYS AFTER INTERVAL '100 days'
SELECT lag(amount_minor) OVER w AS before, lag(lat, 2) OVER w AS lat_2, lag(amount_minor, 3, -1) OVER w AS third
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time)
