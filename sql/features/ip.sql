-- What comes from this IP address. Transactions without one are not counted.
SELECT
    count(*) FILTER (WHERE ip IS NOT NULL) OVER minute_10             AS ip_count_10m,
    count(DISTINCT card) FILTER (WHERE ip IS NOT NULL) OVER minute_10 AS ip_cards_10m,
    count(DISTINCT card) FILTER (WHERE ip IS NOT NULL) OVER hour_1    AS ip_cards_1h
FROM transactions
WINDOW
    minute_10 AS (PARTITION BY ip ORDER BY event_time
                  RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW),
    hour_1    AS (PARTITION BY ip ORDER BY event_time
                  RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)
