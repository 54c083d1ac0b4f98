SELECT count(*) OVER (PARTITION BY card ORDER BY event_time) AS x FROM transactions
