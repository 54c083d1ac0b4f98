SELECT fraud AS x FROM transactions
