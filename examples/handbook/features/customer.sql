-- The customer's habits, as the Fraud Detection Handbook has them and a little more.
-- EXPIRE KEYS AFTER INTERVAL '400 days'
SELECT
    count(*) OVER hour_1                                  AS customer_count_1h,
    count(*) OVER day_1                                   AS customer_count_1d,
    count(*) OVER day_7                                   AS customer_count_7d,
    count(*) OVER day_30                                  AS customer_count_30d,
    avg(amount_minor) OVER hour_1                         AS customer_avg_1h,
    avg(amount_minor) OVER day_1                          AS customer_avg_1d,
    avg(amount_minor) OVER day_7                          AS customer_avg_7d,
    avg(amount_minor) OVER day_30                         AS customer_avg_30d,
    sum(amount_minor) OVER day_1                          AS customer_amount_1d,
    max(amount_minor) OVER day_30                         AS customer_max_30d,
    count(DISTINCT terminal_id) OVER day_1                AS customer_terminals_1d,
    count(DISTINCT terminal_id) OVER day_30               AS customer_terminals_30d,
    stddev(amount_minor) OVER day_30                      AS customer_deviation_30d,
    amount_minor / avg(amount_minor) OVER day_30          AS customer_amount_to_avg_30d,
    CASE WHEN count(*) OVER day_30 >= 3
         THEN (amount_minor - avg(amount_minor) OVER day_30) / nullif(stddev(amount_minor) OVER day_30, 0)
    END                                                   AS customer_amount_z_30d,
    date_part('epoch', event_time) - date_part('epoch', lag(event_time) OVER ever)
                                                          AS customer_seconds_since_last,
    amount_minor - lag(amount_minor) OVER ever            AS customer_amount_step
FROM transactions
WINDOW
    hour_1 AS (PARTITION BY customer_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
    day_1  AS (PARTITION BY customer_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW),
    day_7  AS (PARTITION BY customer_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW),
    day_30 AS (PARTITION BY customer_id ORDER BY event_time
               RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW),
    ever   AS (PARTITION BY customer_id ORDER BY event_time)
