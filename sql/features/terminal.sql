-- What is usual at this point of sale. Transactions without a terminal are not counted.
SELECT
    count(*) FILTER (WHERE terminal_id IS NOT NULL) OVER hour_1               AS terminal_count_1h,
    count(DISTINCT card) FILTER (WHERE terminal_id IS NOT NULL) OVER minute_10 AS terminal_cards_10m,
    avg(reporting_amount_minor) FILTER (WHERE terminal_id IS NOT NULL) OVER day_7
                                                                              AS terminal_avg_amount_7d,
    count(reporting_amount_minor) FILTER (WHERE terminal_id IS NOT NULL) OVER day_7
                                                                              AS terminal_count_7d
FROM transactions
WINDOW
    minute_10 AS (PARTITION BY terminal_id ORDER BY event_time
                  RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW),
    hour_1    AS (PARTITION BY terminal_id ORDER BY event_time
                  RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
    day_7     AS (PARTITION BY terminal_id ORDER BY event_time
                  RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW)
