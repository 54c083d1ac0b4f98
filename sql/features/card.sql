-- What this card has been doing. Amounts are in minor units of the reporting currency.
SELECT
    count(*) OVER minute_10                                        AS card_count_10m,
    count(*) OVER hour_1                                           AS card_count_1h,
    count(*) OVER hour_24                                          AS card_count_24h,
    count(*) FILTER (WHERE reporting_amount_minor <= 500) OVER minute_10
                                                                   AS card_small_count_10m,
    sum(reporting_amount_minor) OVER hour_1                        AS card_amount_1h,
    sum(reporting_amount_minor) OVER hour_24                       AS card_amount_24h,
    max(reporting_amount_minor) OVER hour_24                       AS card_max_amount_24h,
    count(reporting_amount_minor) OVER day_30                      AS card_count_30d,
    avg(reporting_amount_minor) OVER day_30                        AS card_avg_amount_30d,
    reporting_amount_minor / avg(reporting_amount_minor) OVER day_30
                                                                   AS card_amount_to_avg_30d,
    count(DISTINCT merchant_id) OVER hour_1                        AS card_merchants_1h,
    count(DISTINCT terminal_id) OVER hour_1                        AS card_terminals_1h,
    count(DISTINCT location_country) OVER hour_1                   AS card_countries_1h,
    max(lat) OVER hour_1 - min(lat) OVER hour_1                    AS card_lat_span_1h,
    count(DISTINCT device_id) OVER hour_24                         AS card_devices_24h
FROM transactions
WINDOW
    minute_10 AS (PARTITION BY card ORDER BY event_time
                  RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW),
    hour_1    AS (PARTITION BY card ORDER BY event_time
                  RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
    hour_24   AS (PARTITION BY card ORDER BY event_time
                  RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW),
    day_30    AS (PARTITION BY card ORDER BY event_time
                  RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW)
