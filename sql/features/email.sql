-- How many cards one e-mail address pays with. Transactions without one are not counted.
SELECT
    count(DISTINCT card) FILTER (WHERE email IS NOT NULL) OVER (
        PARTITION BY email ORDER BY event_time
        RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW) AS email_cards_24h
FROM transactions
