-- Alerts raised: at most one per transaction.
-- Files are kept by the hour of raised_at.
CREATE TABLE alerts (
    id             VARCHAR NOT NULL,                          -- alr_…, derived from the transaction
    transaction_id VARCHAR NOT NULL,
    merchant_id    VARCHAR NOT NULL,
    raised_at      TIMESTAMP(3) WITH TIME ZONE NOT NULL,      -- the transaction's window time
    severity       VARCHAR NOT NULL,                          -- medium, high, critical
    outcome        VARCHAR NOT NULL,
    risk_score     TINYINT UNSIGNED NOT NULL,
    card_token     VARCHAR NOT NULL,
    card_masked    VARCHAR NOT NULL,
    amount_minor   BIGINT NOT NULL,
    currency       VARCHAR NOT NULL,
    livemode       BOOLEAN NOT NULL,
    reasons        VARCHAR NOT NULL                           -- a JSON list, as on the wire
);
