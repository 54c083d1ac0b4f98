SELECT first_value(amount_minor) OVER w AS first, last_value(amount_minor) OVER w AS own,
       first_value(lat) OVER w AS first_lat, last_value(amount_minor) OVER before AS before
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
       before AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '2 days' PRECEDING AND INTERVAL '1 hour' PRECEDING)
