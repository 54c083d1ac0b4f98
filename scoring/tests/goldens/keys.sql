SELECT count(*) OVER (PARTITION BY card, merchant_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW) AS pair,
       count(*) OVER (ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS everything,
       count(*) OVER (PARTITION BY amount_minor % 2 ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW) AS parity,
       count(*) OVER (PARTITION BY lat ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW) AS place
FROM transactions
