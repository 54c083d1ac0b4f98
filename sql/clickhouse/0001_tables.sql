-- The warehouse's tables, one row per record as in ../warehouse/, with the record's place on the topic it
-- came from. The columns' meaning is written there.
--
-- non_replicated_deduplication_window: a batch sent twice with one insert_deduplication_token counts once.
-- It is the number of newest parts whose tokens are remembered, at one batch a second hours of them.
-- Without it a plain MergeTree remembers none.
--
-- ORDER BY begins with the hour: questions nearly always name a time and often a merchant. The engine does
-- not see that the hour of a DateTime64 grows with it, so the minmax index on the time does the skipping.
-- TTL drops whole months; another keeping time: ALTER TABLE … MODIFY TTL.

CREATE TABLE IF NOT EXISTS transactions (
    id                     String CODEC(ZSTD(1)),
    merchant_id            LowCardinality(String),
    accepted_at            DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    livemode               Bool,
    amount_minor           Int64 CODEC(T64, ZSTD(1)),
    currency               LowCardinality(String),
    reporting_amount_minor Nullable(Int64) CODEC(T64, ZSTD(1)),
    card_token             String CODEC(ZSTD(1)),
    card_bin               LowCardinality(String),
    card_last4             LowCardinality(String),
    card_brand             LowCardinality(String),
    card_exp_month         UInt8,
    card_exp_year          UInt16,
    customer_id            Nullable(String) CODEC(ZSTD(1)),
    customer_email         Nullable(String) CODEC(ZSTD(1)),
    customer_phone         Nullable(String) CODEC(ZSTD(1)),
    device_id              Nullable(String) CODEC(ZSTD(1)),
    device_ip              Nullable(String) CODEC(ZSTD(1)),
    device_user_agent      Nullable(String) CODEC(ZSTD(1)),
    billing_country        LowCardinality(Nullable(String)),
    billing_city           Nullable(String) CODEC(ZSTD(1)),
    billing_postal_code    Nullable(String) CODEC(ZSTD(1)),
    shipping_country       LowCardinality(Nullable(String)),
    shipping_city          Nullable(String) CODEC(ZSTD(1)),
    shipping_postal_code   Nullable(String) CODEC(ZSTD(1)),
    location_country       LowCardinality(Nullable(String)),
    location_lat           Nullable(Float64) CODEC(ZSTD(1)),
    location_lon           Nullable(Float64) CODEC(ZSTD(1)),
    mcc                    LowCardinality(Nullable(String)),
    terminal_id            Nullable(String) CODEC(ZSTD(1)),
    metadata               String CODEC(ZSTD(1)),
    test_behaviour         LowCardinality(Nullable(String)),
    idempotency_key        Nullable(String) CODEC(ZSTD(1)),
    source_partition       UInt32 CODEC(T64, ZSTD(1)),
    source_offset          UInt64 CODEC(Delta(8), ZSTD(1)),
    log_partition          UInt32 CODEC(T64, ZSTD(1)),           -- place on transactions.decided
    log_offset             UInt64 CODEC(Delta(8), ZSTD(1)),
    INDEX by_accepted_at accepted_at TYPE minmax GRANULARITY 1,
    INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_card card_token TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(accepted_at)
ORDER BY (toStartOfHour(accepted_at), merchant_id, accepted_at, id)
TTL toDateTime(accepted_at) + INTERVAL 2 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS decisions (
    transaction_id         String CODEC(ZSTD(1)),
    merchant_id            LowCardinality(String),
    accepted_at            DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    window_time_us         Int64 CODEC(Delta(8), ZSTD(1)),
    decided_at             DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    latency_ms             Float64 CODEC(ZSTD(1)),
    outcome                LowCardinality(String),
    risk_score             UInt8,
    risk_level             LowCardinality(String),
    ruleset                LowCardinality(String),
    model                  LowCardinality(Nullable(String)),
    livemode               Bool,
    amount_minor           Int64 CODEC(T64, ZSTD(1)),
    currency               LowCardinality(String),
    reporting_amount_minor Nullable(Int64) CODEC(T64, ZSTD(1)),
    card_token             String CODEC(ZSTD(1)),
    card_masked            String CODEC(ZSTD(1)),
    seq                    UInt64 CODEC(Delta(8), ZSTD(1)),
    source_partition       UInt32 CODEC(T64, ZSTD(1)),
    source_offset          UInt64 CODEC(Delta(8), ZSTD(1)),
    log_partition          UInt32 CODEC(T64, ZSTD(1)),           -- place on transactions.decided
    log_offset             UInt64 CODEC(Delta(8), ZSTD(1)),
    INDEX by_accepted_at accepted_at TYPE minmax GRANULARITY 1,
    INDEX by_transaction transaction_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_card card_token TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_window_time window_time_us TYPE minmax GRANULARITY 1,
    INDEX by_decided_at decided_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(accepted_at)
ORDER BY (toStartOfHour(accepted_at), merchant_id, accepted_at, transaction_id)
TTL toDateTime(accepted_at) + INTERVAL 2 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS rule_hits (
    transaction_id         String CODEC(ZSTD(1)),
    merchant_id            LowCardinality(String),
    accepted_at            DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    outcome                LowCardinality(String),
    mode                   LowCardinality(String),
    position               UInt16 CODEC(T64, ZSTD(1)),
    rule                   LowCardinality(String),
    code                   LowCardinality(String),
    message                String CODEC(ZSTD(1)),
    observed               Float64 CODEC(ZSTD(1)),
    limit_value            Float64 CODEC(ZSTD(1)),
    points                 UInt32 CODEC(T64, ZSTD(1)),
    log_partition          UInt32 CODEC(T64, ZSTD(1)),           -- place on transactions.decided
    log_offset             UInt64 CODEC(Delta(8), ZSTD(1)),
    INDEX by_accepted_at accepted_at TYPE minmax GRANULARITY 1,
    INDEX by_transaction transaction_id TYPE bloom_filter(0.01) GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(accepted_at)
ORDER BY (mode, rule, toStartOfHour(accepted_at), merchant_id, accepted_at, transaction_id)
TTL toDateTime(accepted_at) + INTERVAL 2 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE TABLE IF NOT EXISTS alerts (
    id                     String CODEC(ZSTD(1)),
    transaction_id         String CODEC(ZSTD(1)),
    merchant_id            LowCardinality(String),
    raised_at              DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    severity               LowCardinality(String),
    outcome                LowCardinality(String),
    risk_score             UInt8,
    card_token             String CODEC(ZSTD(1)),
    card_masked            String CODEC(ZSTD(1)),
    amount_minor           Int64 CODEC(T64, ZSTD(1)),
    currency               LowCardinality(String),
    livemode               Bool,
    reasons                String CODEC(ZSTD(1)),
    log_partition          UInt32 CODEC(T64, ZSTD(1)),           -- place on fraud.alerts
    log_offset             UInt64 CODEC(Delta(8), ZSTD(1)),
    INDEX by_transaction transaction_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_raised_at raised_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(raised_at)
ORDER BY (severity, toStartOfHour(raised_at), merchant_id, raised_at, id)
TTL toDateTime(raised_at) + INTERVAL 2 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- All labels are kept, not only the latest: what was known when, and how figures matured, is asked of this
-- table. A ReplacingMergeTree would drop the earlier ones at a time of its own choosing, so counts would
-- depend on merges. The latest is in the view current_labels.
CREATE TABLE IF NOT EXISTS labels (
    transaction_id         String CODEC(ZSTD(1)),
    merchant_id            LowCardinality(String),
    labelled_at            DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    verdict                LowCardinality(String),
    source                 LowCardinality(String),
    note                   Nullable(String) CODEC(ZSTD(1)),
    log_partition          UInt32 CODEC(T64, ZSTD(1)),           -- place on transactions.labelled
    log_offset             UInt64 CODEC(Delta(8), ZSTD(1)),
    INDEX by_transaction transaction_id TYPE bloom_filter(0.01) GRANULARITY 1,
    INDEX by_labelled_at labelled_at TYPE minmax GRANULARITY 1
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(labelled_at)
ORDER BY (merchant_id, transaction_id, labelled_at)
TTL toDateTime(labelled_at) + INTERVAL 2 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

-- What people and tools did: changes to lists, retried dead letters, applied migrations.
CREATE TABLE IF NOT EXISTS audit_log (
    at                     DateTime64(3, 'UTC') CODEC(Delta(8), ZSTD(1)),
    actor                  LowCardinality(String),               -- who, or which tool
    action                 LowCardinality(String),               -- what was done, as noun.verb
    subject                String CODEC(ZSTD(1)),                -- to what: an id, a name, a topic
    detail                 String CODEC(ZSTD(1))                 -- a JSON object
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(at)
ORDER BY (action, at, actor)
TTL toDateTime(at) + INTERVAL 5 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;
