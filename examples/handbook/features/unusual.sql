-- A layer above customer.sql: how often this customer lately spent far above what was usual then.
SELECT
    count(*) FILTER (WHERE amount_minor > 3 * customer_avg_30d) OVER day_14 AS customer_unusual_14d
FROM transactions
WINDOW day_14 AS (PARTITION BY customer_id ORDER BY event_time
                  RANGE BETWEEN INTERVAL '14 days' PRECEDING AND CURRENT ROW)
