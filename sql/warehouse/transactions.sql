-- What merchants submitted: one row per accepted and decided transaction.
-- Files are kept by the hour of accepted_at.
CREATE TABLE transactions (
    id                     VARCHAR NOT NULL,                  -- txn_…, derived from merchant and idempotency key
    merchant_id            VARCHAR NOT NULL,
    accepted_at            TIMESTAMP(3) WITH TIME ZONE NOT NULL, -- when the gateway accepted it
    livemode               BOOLEAN NOT NULL,                  -- false under a test key
    amount_minor           BIGINT NOT NULL,                   -- in the currency's minor unit
    currency               VARCHAR NOT NULL,                  -- ISO 4217
    reporting_amount_minor BIGINT,                            -- in minor units of the reporting currency; absent without a rate
    card_token             VARCHAR NOT NULL,                  -- stands for the card number, which is nowhere
    card_bin               VARCHAR NOT NULL,                  -- first six or eight digits
    card_last4             VARCHAR NOT NULL,
    card_brand             VARCHAR NOT NULL,
    card_exp_month         TINYINT UNSIGNED NOT NULL,
    card_exp_year          SMALLINT UNSIGNED NOT NULL,
    customer_id            VARCHAR,
    customer_email         VARCHAR,
    customer_phone         VARCHAR,
    device_id              VARCHAR,
    device_ip              VARCHAR,
    device_user_agent      VARCHAR,
    billing_country        VARCHAR,                           -- ISO 3166-1 alpha-2
    billing_city           VARCHAR,
    billing_postal_code    VARCHAR,
    shipping_country       VARCHAR,
    shipping_city          VARCHAR,
    shipping_postal_code   VARCHAR,
    location_country       VARCHAR,
    location_lat           DOUBLE,                            -- degrees north
    location_lon           DOUBLE,                            -- degrees east
    mcc                    VARCHAR,                           -- ISO 18245, four digits
    terminal_id            VARCHAR,
    metadata               VARCHAR NOT NULL,                  -- a JSON object of strings
    test_behaviour         VARCHAR,                           -- what a documented test card asked for
    idempotency_key        VARCHAR,
    source_partition       INTEGER UNSIGNED NOT NULL,         -- place on transactions.created
    source_offset          BIGINT UNSIGNED NOT NULL
);
