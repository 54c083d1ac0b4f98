SELECT min(amount_minor) OVER w AS low, max(amount_minor) OVER w AS high, min(lat) OVER w AS south,
       max(event_time) OVER w AS now, min(event_time) OVER w AS since
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)
