SELECT count(* OVER AS x FROM transactions
