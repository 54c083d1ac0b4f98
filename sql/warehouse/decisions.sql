-- What scoring decided: one row per transaction. Carries the transaction's amount, merchant and masked
-- card, so that most questions need no join.
-- Files are kept by the hour of accepted_at.
CREATE TABLE decisions (
    transaction_id         VARCHAR NOT NULL,
    merchant_id            VARCHAR NOT NULL,
    accepted_at            TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    window_time_us         BIGINT NOT NULL,                   -- place in window time, microseconds, strictly increasing
    decided_at             TIMESTAMP(3) WITH TIME ZONE NOT NULL,
    latency_ms             DOUBLE NOT NULL,                   -- decided_at - accepted_at
    outcome                VARCHAR NOT NULL,                  -- approve, review, challenge, decline
    risk_score             TINYINT UNSIGNED NOT NULL,         -- 0 to 100
    risk_level             VARCHAR NOT NULL,                  -- normal, elevated, highest
    ruleset                VARCHAR NOT NULL,                  -- hash of the features and rules in force
    model                  VARCHAR,                           -- name@version
    livemode               BOOLEAN NOT NULL,
    amount_minor           BIGINT NOT NULL,
    currency               VARCHAR NOT NULL,
    reporting_amount_minor BIGINT,
    card_token             VARCHAR NOT NULL,
    card_masked            VARCHAR NOT NULL,                  -- 411111••••••1111
    seq                    BIGINT UNSIGNED NOT NULL,          -- place in the analyzer's processing order
    source_partition       INTEGER UNSIGNED NOT NULL,         -- place of the transaction on transactions.created
    source_offset          BIGINT UNSIGNED NOT NULL
);
