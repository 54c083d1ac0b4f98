-- How busy the terminal is.
SELECT
    count(*) OVER hour_1            AS terminal_count_1h,
    count(*) OVER day_1             AS terminal_count_1d,
    count(*) OVER day_7             AS terminal_count_7d,
    count(*) OVER day_30            AS terminal_count_30d,
    avg(amount_minor) OVER hour_1   AS terminal_avg_1h,
    avg(amount_minor) OVER day_1    AS terminal_avg_1d,
    avg(amount_minor) OVER day_7    AS terminal_avg_7d,
    avg(amount_minor) OVER day_30   AS terminal_avg_30d
FROM transactions
WINDOW
    hour_1 AS (PARTITION BY terminal_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
    day_1  AS (PARTITION BY terminal_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW),
    day_7  AS (PARTITION BY terminal_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW),
    day_30 AS (PARTITION BY terminal_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW)
