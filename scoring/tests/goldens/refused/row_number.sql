SELECT row_number() OVER (PARTITION BY card ORDER BY event_time) AS x FROM transactions
