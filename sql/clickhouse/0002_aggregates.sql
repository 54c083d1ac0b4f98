-- Aggregates per minute and per day, filled by materialized views as batches arrive.
--
-- They count a batch once only when the insert says deduplicate_blocks_in_dependent_materialized_views = 1
-- and their tables remember tokens too, as set here.
--
-- Rows of one key are added up by merges: read them with sum(), max() and quantilesTDigestMerge(), and
-- GROUP BY. Sums of amounts are 64-bit: an amount is below 10^12, so a key has room for nine million of the
-- largest; keys are minutes or days of one merchant, currency and outcome.

CREATE TABLE IF NOT EXISTS decisions_per_minute (
    minute                 DateTime('UTC') CODEC(Delta(4), ZSTD(1)),  -- of accepted_at
    livemode               Bool,
    merchant_id            LowCardinality(String),
    currency               LowCardinality(String),
    outcome                LowCardinality(String),
    transactions           SimpleAggregateFunction(sum, UInt64),
    amount_minor           SimpleAggregateFunction(sum, Int64),       -- in the currency's minor unit
    reporting_amount_minor SimpleAggregateFunction(sum, Int64),       -- of those with a rate
    without_rate           SimpleAggregateFunction(sum, UInt64),      -- transactions without one
    risk_score_sum         SimpleAggregateFunction(sum, UInt64),
    latency_ms_sum         SimpleAggregateFunction(sum, Float64),
    latency_ms_max         SimpleAggregateFunction(max, Float64),
    latency_ms_quantiles   AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (livemode, outcome, currency, minute, merchant_id)
TTL minute + INTERVAL 2 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS decisions_per_minute_mv TO decisions_per_minute AS
SELECT
    toStartOfMinute(accepted_at) AS minute,
    livemode,
    merchant_id,
    currency,
    outcome,
    count() AS transactions,
    sum(d.amount_minor) AS amount_minor,
    sum(coalesce(d.reporting_amount_minor, 0)) AS reporting_amount_minor,
    countIf(d.reporting_amount_minor IS NULL) AS without_rate,
    sum(risk_score) AS risk_score_sum,
    sum(latency_ms) AS latency_ms_sum,
    max(latency_ms) AS latency_ms_max,
    quantilesTDigestState(0.5, 0.95, 0.99)(latency_ms) AS latency_ms_quantiles
FROM decisions AS d
GROUP BY minute, livemode, merchant_id, currency, outcome;

CREATE TABLE IF NOT EXISTS decisions_per_day (
    day                    Date CODEC(Delta(2), ZSTD(1)),             -- of accepted_at, UTC
    livemode               Bool,
    merchant_id            LowCardinality(String),
    currency               LowCardinality(String),
    outcome                LowCardinality(String),
    transactions           SimpleAggregateFunction(sum, UInt64),
    amount_minor           SimpleAggregateFunction(sum, Int64),
    reporting_amount_minor SimpleAggregateFunction(sum, Int64),
    without_rate           SimpleAggregateFunction(sum, UInt64),
    risk_score_sum         SimpleAggregateFunction(sum, UInt64),
    latency_ms_sum         SimpleAggregateFunction(sum, Float64),
    latency_ms_max         SimpleAggregateFunction(max, Float64),
    latency_ms_quantiles   AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Float64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(day)
ORDER BY (livemode, outcome, currency, day, merchant_id)
TTL day + INTERVAL 5 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS decisions_per_day_mv TO decisions_per_day AS
SELECT
    toDate(accepted_at) AS day,
    livemode,
    merchant_id,
    currency,
    outcome,
    count() AS transactions,
    sum(d.amount_minor) AS amount_minor,
    sum(coalesce(d.reporting_amount_minor, 0)) AS reporting_amount_minor,
    countIf(d.reporting_amount_minor IS NULL) AS without_rate,
    sum(risk_score) AS risk_score_sum,
    sum(latency_ms) AS latency_ms_sum,
    max(latency_ms) AS latency_ms_max,
    quantilesTDigestState(0.5, 0.95, 0.99)(latency_ms) AS latency_ms_quantiles
FROM decisions AS d
GROUP BY day, livemode, merchant_id, currency, outcome;

CREATE TABLE IF NOT EXISTS alerts_per_minute (
    minute                 DateTime('UTC') CODEC(Delta(4), ZSTD(1)),  -- of raised_at
    livemode               Bool,
    severity               LowCardinality(String),
    merchant_id            LowCardinality(String),
    currency               LowCardinality(String),
    outcome                LowCardinality(String),
    alerts                 UInt64,
    amount_minor           Int64
)
ENGINE = SummingMergeTree((alerts, amount_minor))
PARTITION BY toYYYYMM(minute)
ORDER BY (livemode, severity, outcome, currency, minute, merchant_id)
TTL minute + INTERVAL 2 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS alerts_per_minute_mv TO alerts_per_minute AS
SELECT
    toStartOfMinute(raised_at) AS minute,
    livemode,
    severity,
    merchant_id,
    currency,
    outcome,
    count() AS alerts,
    sum(a.amount_minor) AS amount_minor
FROM alerts AS a
GROUP BY minute, livemode, severity, merchant_id, currency, outcome;

CREATE TABLE IF NOT EXISTS rule_hits_per_minute (
    minute                 DateTime('UTC') CODEC(Delta(4), ZSTD(1)),  -- of the transaction's accepted_at
    mode                   LowCardinality(String),
    rule                   LowCardinality(String),
    code                   LowCardinality(String),
    outcome                LowCardinality(String),
    merchant_id            LowCardinality(String),
    hits                   UInt64,
    points                 UInt64
)
ENGINE = SummingMergeTree((hits, points))
PARTITION BY toYYYYMM(minute)
ORDER BY (mode, rule, code, outcome, minute, merchant_id)
TTL minute + INTERVAL 2 YEAR
SETTINGS non_replicated_deduplication_window = 10000, ttl_only_drop_parts = 1;

CREATE MATERIALIZED VIEW IF NOT EXISTS rule_hits_per_minute_mv TO rule_hits_per_minute AS
SELECT
    toStartOfMinute(accepted_at) AS minute,
    mode,
    rule,
    code,
    outcome,
    merchant_id,
    count() AS hits,
    sum(h.points) AS points
FROM rule_hits AS h
GROUP BY minute, mode, rule, code, outcome, merchant_id;
