-- How busy the terminal is, and how many frauds there were once their labels had a week to come.
SELECT
    count(*) OVER hour_1            AS terminal_count_1h,
    count(*) OVER day_1             AS terminal_count_1d,
    count(*) OVER day_7             AS terminal_count_7d,
    count(*) OVER day_30            AS terminal_count_30d,
    avg(amount_minor) OVER hour_1   AS terminal_avg_1h,
    avg(amount_minor) OVER day_1    AS terminal_avg_1d,
    avg(amount_minor) OVER day_7    AS terminal_avg_7d,
    avg(amount_minor) OVER day_30   AS terminal_avg_30d,
    count(*) OVER late_1            AS terminal_late_count_1d,
    count(*) OVER late_7            AS terminal_late_count_7d,
    count(*) OVER late_30           AS terminal_late_count_30d,
    1.0 * count(*) FILTER (WHERE fraud) OVER late_1 / nullif(count(*) OVER late_1, 0)   AS terminal_risk_1d,
    1.0 * count(*) FILTER (WHERE fraud) OVER late_7 / nullif(count(*) OVER late_7, 0)   AS terminal_risk_7d,
    1.0 * count(*) FILTER (WHERE fraud) OVER late_30 / nullif(count(*) OVER late_30, 0) AS terminal_risk_30d
FROM transactions
WINDOW
    hour_1 AS (PARTITION BY terminal_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
    day_1  AS (PARTITION BY terminal_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW),
    day_7  AS (PARTITION BY terminal_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW),
    day_30 AS (PARTITION BY terminal_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW),
    late_1  AS (PARTITION BY terminal_id ORDER BY event_time
                RANGE BETWEEN INTERVAL '8 days' PRECEDING AND INTERVAL '7 days' PRECEDING),
    late_7  AS (PARTITION BY terminal_id ORDER BY event_time
                RANGE BETWEEN INTERVAL '14 days' PRECEDING AND INTERVAL '7 days' PRECEDING),
    late_30 AS (PARTITION BY terminal_id ORDER BY event_time
                RANGE BETWEEN INTERVAL '37 days' PRECEDING AND INTERVAL '7 days' PRECEDING)
