-- Sums over all decisions, by outcome: the page's counters after a restart.
SELECT
    outcome,
    count(*) AS transactions,
    coalesce(sum(reporting_amount_minor), 0) AS amount_reporting_minor
FROM decisions
GROUP BY outcome
ORDER BY outcome
