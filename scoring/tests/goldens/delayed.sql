-- What is known of a terminal once its labels have had time to mature.
SELECT count(*) OVER w AS n, sum(amount_minor) OVER w AS s, max(amount_minor) OVER w AS high,
       count(DISTINCT card) OVER w AS cards
FROM transactions
WINDOW w AS (PARTITION BY merchant_id ORDER BY event_time
             RANGE BETWEEN INTERVAL '2 days' PRECEDING AND INTERVAL '1 hour' PRECEDING)
