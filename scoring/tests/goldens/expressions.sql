-- Ratios, CASE, a z-score, seconds since the last transaction, great-circle speed between two.
-- EXPIRE KEYS AFTER INTERVAL '100 days'
SELECT amount_minor / avg(amount_minor) OVER w AS ratio,
       CASE WHEN count(*) OVER w > 2 THEN 'busy' ELSE 'quiet' END AS pace,
       date_part('epoch', event_time) - date_part('epoch', lag(event_time) OVER ever) AS seconds_since,
       round(2 * 6371 * asin(sqrt(power(sin(radians(lat - lag(lat) OVER ever) / 2), 2)
           + cos(radians(lat)) * cos(radians(lag(lat) OVER ever)) * power(sin(radians(lon - lag(lon) OVER ever) / 2), 2)))
           / nullif((date_part('epoch', event_time) - date_part('epoch', lag(event_time) OVER ever)) / 3600.0, 0)) AS km_per_h
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
       ever AS (PARTITION BY card ORDER BY event_time)
