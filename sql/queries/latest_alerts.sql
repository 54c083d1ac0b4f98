-- The newest alerts, with their reasons as JSON: the page's feed after a restart.
SELECT
    id, transaction_id, merchant_id, raised_at, severity, outcome, risk_score,
    card_masked, amount_minor, currency, reasons
FROM alerts
ORDER BY raised_at DESC, id DESC
LIMIT {rows:UInt32}
