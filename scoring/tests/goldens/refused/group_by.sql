SELECT card AS c, count(*) AS n FROM transactions GROUP BY card
