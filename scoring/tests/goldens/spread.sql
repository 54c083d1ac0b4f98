SELECT var(exp_month + 7) OVER w AS none, var_pop(bin::int) OVER w AS zero,
       stddev_pop(CASE WHEN merchant_id = 'merchant_1' THEN 3 ELSE 5 END) OVER w AS dev
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW)
