-- Decisions made since a time: the page's chart of outcomes and latency, and its list of merchants,
-- after a restart.
SELECT decided_at, outcome, latency_ms, merchant_id, reporting_amount_minor
FROM decisions
WHERE decided_at >= {since:DateTime64(3)}
