-- How many of this card's transactions in a day were above its then usual amount.
WITH usual AS (
    SELECT *, avg(amount_minor) OVER (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW) AS mean
    FROM transactions
)
SELECT mean AS usual_amount,
       count(*) FILTER (WHERE amount_minor > mean) OVER w AS above,
       max(mean) OVER w AS highest_mean
FROM usual
WINDOW w AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW)
