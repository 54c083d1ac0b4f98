//! The merchants' HTTP API: authentication, validation, tokenisation, idempotency, a durable write to
//! the log, and the decision in the answer.
//!
//! A card number never passes this crate: what leaves it is a keyed token, the first and the last
//! digits. A 2xx answer is given only after the log acknowledged the write.
//!
//! In the order data flows:
//! - [`config`]: what can be set.
//! - `metrics`: what is counted.
//! - `limits`, `client_ip`: how often a caller may call, and who the caller is.
//! - [`auth`]: API keys, the merchant behind a request, and its scopes.
//! - `pan`, [`tokenise`]: the card number, and the token that replaces it.
//! - `request`: both body forms parsed into one, all errors at once.
//! - `reporting`: the amount in the reporting currency.
//! - [`problem`]: every error answer, RFC 9457.
//! - `pending`: requests under way, and who waits for which decision.
//! - [`ledger`]: the accepted transactions, for retries and for status.
//! - [`replicas`]: what gateways share through Redis.
//! - `accept`: the flow from bytes to an answer.
//! - `answer`: what a merchant is told.
//! - `catch_up`, `follow`, `decisions`: what the log tells the ledger and the waiting requests.
//! - `stored`: an accepted transaction, read back from the log.
//! - `publish`: writing to the log what a merchant said beside transactions.
//! - `body`, `lines`: reading a request, and many things in one.
//! - `handlers`, `labels`, `lists`, `batch`: what each route does.
//! - `observe`, `admission`, `routes`: the layers around them, and which is where.
//! - `state`, `gateway`: what they share, and its life from start to stop.

mod accept;
mod admission;
mod answer;
pub mod auth;
mod batch;
mod body;
mod catch_up;
mod client_ip;
pub mod config;
mod decisions;
mod follow;
mod gateway;
mod handlers;
mod labels;
pub mod ledger;
mod limits;
mod lines;
mod lists;
mod metrics;
mod observe;
mod pan;
mod pending;
pub mod problem;
mod publish;
pub mod replicas;
mod reporting;
mod request;
mod routes;
mod state;
mod stored;
pub mod tokenise;

pub use auth::{ApiKeys, Scope};
pub use config::{FailMode, GatewayConfig};
pub use gateway::Gateway;
pub use ledger::Ledger;
pub use replicas::config::RedisConfig;
pub use tokenise::Tokeniser;
