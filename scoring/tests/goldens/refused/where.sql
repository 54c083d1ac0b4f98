SELECT amount_minor AS a FROM transactions WHERE amount_minor > 1
