-- The decision on one transaction.
SELECT
    outcome, risk_score, risk_level, decided_at, latency_ms, window_time_us, ruleset, model, card_masked, seq
FROM decisions
WHERE transaction_id = {id:String}
