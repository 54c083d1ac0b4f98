SELECT count(*) FILTER (WHERE amount_minor > 500) OVER w AS n,
       sum(amount_minor) FILTER (WHERE device_id IS NOT NULL AND merchant_id = 'merchant_1') OVER w AS s
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)
