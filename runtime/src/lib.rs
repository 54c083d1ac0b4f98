//! What every service needs and none is about: configuration, telemetry, HTTP serving, the admin
//! endpoint and ordered shutdown.
//!
//! - [`config`]: defaults, file and environment into one typed configuration, all errors at once.
//! - [`telemetry`]: structured logs, and what can be set of them and of traces.
//! - [`scope`]: what the work under way is about, for log lines.
//! - [`trace`]: traces, for the transactions that are sampled.
//! - [`http`]: serving an axum router with deadlines, limits and a graceful end.
//! - [`admin`]: `/healthz`, `/readyz` and `/metrics`.
//! - [`background`]: threads that let others go first.
//! - [`service`]: a running service, and stopping several in order.
//! - [`signals`]: what SIGINT, SIGTERM and SIGHUP do.

pub mod admin;
pub mod background;
pub mod config;
pub mod http;
mod process;
pub mod scope;
pub mod service;
pub mod signals;
pub mod telemetry;
pub mod trace;

pub use admin::Readiness;
pub use service::Service;
