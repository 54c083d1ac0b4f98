-- The newest decisions: the page's list after a restart.
SELECT
    transaction_id, merchant_id, accepted_at, amount_minor, currency, card_masked,
    outcome, risk_score, risk_level, latency_ms
FROM decisions
ORDER BY window_time_us DESC, transaction_id DESC
LIMIT {rows:UInt32}
