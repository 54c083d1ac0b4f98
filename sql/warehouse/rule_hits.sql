-- The rules that matched: one row per transaction and rule.
-- Files are kept by the hour of accepted_at.
CREATE TABLE rule_hits (
    transaction_id VARCHAR NOT NULL,
    merchant_id    VARCHAR NOT NULL,
    accepted_at    TIMESTAMP(3) WITH TIME ZONE NOT NULL,      -- of the transaction
    outcome        VARCHAR NOT NULL,                          -- of the decision
    mode           VARCHAR NOT NULL,                          -- live, or shadow: recorded without effect
    position       SMALLINT UNSIGNED NOT NULL,                -- from 0, most points first
    rule           VARCHAR NOT NULL,                          -- id of the rule
    code           VARCHAR NOT NULL,                          -- reason code
    message        VARCHAR NOT NULL,                          -- one sentence with the figures filled in
    observed       DOUBLE NOT NULL,
    limit_value    DOUBLE NOT NULL,
    points         INTEGER UNSIGNED NOT NULL
);
