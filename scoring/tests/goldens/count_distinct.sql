SELECT count(DISTINCT merchant_id) OVER w AS merchants, count(DISTINCT lat) OVER w AS places
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)
