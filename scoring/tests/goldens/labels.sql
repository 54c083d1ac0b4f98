-- What transactions turned out to be, as far as was known at each row.
WITH known AS (
    SELECT *, count(*) FILTER (WHERE fraud) OVER day AS card_frauds
    FROM transactions
    WINDOW day AS (PARTITION BY card ORDER BY event_time
                   RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW)
)
SELECT card_frauds AS frauds,
       count(*) FILTER (WHERE NOT fraud) OVER late AS legit,
       count(*) FILTER (WHERE fraud IS NULL) OVER late AS unknown,
       sum(amount_minor) FILTER (WHERE fraud) OVER late AS lost,
       avg(amount_minor) FILTER (WHERE fraud IS NOT TRUE) OVER late AS usual,
       1.0 * count(*) FILTER (WHERE fraud) OVER late / nullif(count(*) OVER late, 0) AS risk,
       max(card_frauds) OVER late AS worst_card
FROM known
WINDOW late AS (PARTITION BY merchant_id ORDER BY event_time
                RANGE BETWEEN INTERVAL '2 days' PRECEDING AND INTERVAL '1 hour' PRECEDING)
