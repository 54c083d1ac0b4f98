SELECT now() > event_time AS x FROM transactions
