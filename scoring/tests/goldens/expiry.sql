-- A silence of more than a day: the key begins anew.
-- EXPIRE KEYS AFTER INTERVAL '1 day'
SELECT count(*) OVER w AS n, lag(amount_minor) OVER w AS before, first_value(amount_minor) OVER w AS first,
       sum(amount_minor) OVER (PARTITION BY card ORDER BY event_time ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS s_3,
       count(*) OVER (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '40 days' PRECEDING AND CURRENT ROW) AS n_40d
FROM transactions
WINDOW w AS (PARTITION BY card ORDER BY event_time)
