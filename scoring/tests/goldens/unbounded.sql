-- EXPIRE KEYS AFTER INTERVAL '100 days'
SELECT count(*) OVER w AS n, sum(amount_minor) OVER w AS s, min(amount_minor) OVER w AS low,
       first_value(event_time) OVER w AS since
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
