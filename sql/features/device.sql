-- What comes from this device. Transactions without a device id are not counted.
SELECT
    count(*) FILTER (WHERE device_id IS NOT NULL) OVER minute_10          AS device_count_10m,
    count(DISTINCT card) FILTER (WHERE device_id IS NOT NULL) OVER hour_1 AS device_cards_1h,
    count(DISTINCT card) FILTER (WHERE device_id IS NOT NULL) OVER day_7  AS device_cards_7d
FROM transactions
WINDOW
    minute_10 AS (PARTITION BY device_id ORDER BY event_time
                  RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW),
    hour_1    AS (PARTITION BY device_id ORDER BY event_time
                  RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
    day_7     AS (PARTITION BY device_id ORDER BY event_time
                  RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW)
