-- What is usual at this merchant, and how the cards of one issuer behave there.
SELECT
    count(*) OVER hour_1                               AS merchant_count_1h,
    avg(reporting_amount_minor) OVER hour_24           AS merchant_avg_amount_24h,
    count(reporting_amount_minor) OVER hour_24         AS merchant_count_24h,
    count(DISTINCT card) OVER bin_minute_10            AS bin_cards_10m,
    count(DISTINCT card) FILTER (WHERE reporting_amount_minor <= 500) OVER bin_minute_10
                                                       AS bin_small_cards_10m
FROM transactions
WINDOW
    hour_1        AS (PARTITION BY merchant_id ORDER BY event_time
                      RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
    hour_24       AS (PARTITION BY merchant_id ORDER BY event_time
                      RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW),
    bin_minute_10 AS (PARTITION BY merchant_id, bin ORDER BY event_time
                      RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW)
