SELECT count(*) OVER w AS n, count(reporting_amount_minor) OVER w AS known
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)
