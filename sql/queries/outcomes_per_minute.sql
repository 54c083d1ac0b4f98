-- Outcomes per minute since a time: the page's history.
SELECT
    date_trunc('minute', decided_at) AS minute,
    sum(CASE WHEN outcome = 'approve' THEN 1 ELSE 0 END) AS approve,
    sum(CASE WHEN outcome = 'review' THEN 1 ELSE 0 END) AS review,
    sum(CASE WHEN outcome = 'challenge' THEN 1 ELSE 0 END) AS challenge,
    sum(CASE WHEN outcome = 'decline' THEN 1 ELSE 0 END) AS decline
FROM decisions
WHERE decided_at >= {since:DateTime64(3)}
GROUP BY date_trunc('minute', decided_at)
ORDER BY minute
