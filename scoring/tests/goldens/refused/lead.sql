SELECT lead(amount_minor) OVER (PARTITION BY card ORDER BY event_time) AS x FROM transactions
