SELECT amonut_minor AS x FROM transactions
