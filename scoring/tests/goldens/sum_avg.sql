SELECT sum(amount_minor) OVER w AS s, avg(amount_minor) OVER w AS a, sum(reporting_amount_minor) OVER w AS r,
       sum(lat) OVER w AS lats, avg(lat) OVER w AS mean_lat
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)
