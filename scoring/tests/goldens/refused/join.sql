SELECT a.card AS b FROM transactions a JOIN transactions b ON a.card = b.card
