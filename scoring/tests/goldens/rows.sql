-- EXPIRE KEYS AFTER INTERVAL '100 days'
SELECT count(*) OVER w AS n, sum(amount_minor) OVER w AS s, max(amount_minor) FILTER (WHERE amount_minor < 5000) OVER w AS high,
       avg(reporting_amount_minor) OVER (PARTITION BY card ORDER BY event_time ROWS BETWEEN 3 PRECEDING AND 1 PRECEDING) AS before
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time ROWS BETWEEN 2 PRECEDING AND CURRENT ROW)
