//! What the replicas of the gateway share through Redis: who works on which idempotency key, what was
//! accepted and decided, and the callers' token buckets.
//!
//! Redis makes things fast and keeps two requests of one moment apart; it is never what a transaction's
//! uniqueness rests on. That is the log: where Redis cannot vouch for an answer, the log is read to its end
//! (`follow`) before anything is written.
//!
//! - [`config`]: what can be set.
//! - `scripts`: what runs inside Redis.
//! - `client`: talking to it, and leaving it alone while it is away.
//! - `known`: what is kept of a transaction.
//! - `claims`: one replica at a time per idempotency key.
//! - `quotas`: the token buckets.
//! - `writes`: what is written without anybody waiting, and made up for after an outage.

pub(crate) mod claims;
mod client;
pub mod config;
mod known;
pub(crate) mod quotas;
mod scripts;
mod writes;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use events::TransactionId;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use known::Known;

use crate::ledger::Entry;
use crate::metrics::RedisMetrics;
use crate::state::{App, Door};
use client::{Client, Operation};
use config::RedisConfig;
use writes::{Write, Writes};

/// The Redis of a gateway.
pub(crate) struct Redis {
    client: Client,
    writes: Writes,
    /// This replica, in the names of its claims: letters and digits.
    replica: String,
    claims: AtomicU64,
    lease: Duration,
}

impl Redis {
    /// Connects once [`Redis::run`] runs.
    pub(crate) fn new(
        config: &RedisConfig,
        append_deadline_ms: u64,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Arc<Self>> {
        let metrics = RedisMetrics::new(registry).context("registering the metrics of Redis")?;
        let lease = Duration::from_millis(append_deadline_ms + config.claim_margin_ms);
        let writes = Writes::new(config.write_queue_entries, metrics.clone());
        let client = Client::new(config.clone(), metrics).context("redis.url")?;
        let replica = Uuid::new_v4().simple().to_string();
        Ok(Arc::new(Self { client, writes, replica, claims: AtomicU64::new(0), lease }))
    }

    /// Keeps Redis connected and writes to it, until `stop`.
    pub(crate) async fn run(&self, app: &App, stop: &CancellationToken) {
        let mut door = app.door.subscribe();
        tokio::select! {
            _ = door.wait_for(|door| *door != Door::Starting) => {}
            () = stop.cancelled() => {}
        }
        self.writes.begin(app).await;
        self.client.keep_up(stop, || self.writes.work(app, &self.client)).await;
        // What the last requests left, so that another replica can tell of them.
        self.writes.flush(&self.client).await;
    }

    /// Whether a transaction that Redis does not know was surely accepted by nobody: Redis has been there for
    /// everyone for a while, and what was accepted without it has been written to it.
    fn vouches(&self) -> bool {
        let settling = Duration::from_millis(self.client.config.settling_ms);
        self.writes.complete() && self.client.up_since().is_some_and(|since| since.elapsed() >= settling)
    }

    /// What Redis has of a transaction.
    pub(crate) async fn known(&self, id: TransactionId) -> Option<Known> {
        let mut command = redis::cmd("MGET");
        command.arg(self.entry_key(id)).arg(self.view_key(id));
        let (entry, view): (Option<String>, Option<Vec<u8>>) =
            self.client.ask(Operation::Read, &command).await?;
        Some(Known { entry: known::parse(&entry?)?, view })
    }

    /// The document of a decided transaction.
    pub(crate) async fn view(&self, id: TransactionId) -> Option<Vec<u8>> {
        let mut command = redis::cmd("GET");
        command.arg(self.view_key(id));
        self.client.ask::<Option<Vec<u8>>>(Operation::Read, &command).await?
    }

    /// Notes, soon, that a transaction is in the log. `keyed`: a merchant may send it again.
    pub(crate) fn accepted(&self, id: TransactionId, entry: &Entry, keyed: bool) {
        self.writes.put(&self.client, self.acceptance(id, entry, keyed));
    }

    /// Notes, soon, what a merchant is told of a decided transaction.
    pub(crate) fn decided(&self, id: TransactionId, document: &[u8]) {
        self.writes.put(&self.client, self.decision(id, document.to_vec()));
    }

    fn acceptance(&self, id: TransactionId, entry: &Entry, keyed: bool) -> Write {
        let config = &self.client.config;
        // No retry asks for what has no key: it is there for the status alone.
        let ttl_ms = if keyed { config.entry_ttl_ms() } else { config.view_ttl_ms() };
        Write::Accepted { key: self.entry_key(id), entry: known::text(entry), ttl_ms }
    }

    fn decision(&self, id: TransactionId, document: Vec<u8>) -> Write {
        Write::Decided { key: self.view_key(id), document, ttl_ms: self.client.config.view_ttl_ms() }
    }

    /// A name for a claim that no other has.
    fn owner(&self) -> String {
        format!("{}x{}", self.replica, self.claims.fetch_add(1, Ordering::Relaxed))
    }

    // Braces: what belongs to one transaction stays together where Redis is split by key.
    fn entry_key(&self, id: TransactionId) -> String {
        format!("{}{{{id}}}:e", self.client.config.key_prefix)
    }

    fn view_key(&self, id: TransactionId) -> String {
        format!("{}{{{id}}}:v", self.client.config.key_prefix)
    }
}
