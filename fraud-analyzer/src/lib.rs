//! Moves transactions through scoring: from the log, in micro-batches, back to the log as decisions
//! and alerts; and from files, offline, through the same code.
//!
//! In the order data flows:
//! - [`config`]: the section `[analyzer]`.
//! - [`metrics`]: everything it counts.
//! - `lane`: the parts that the partitions are divided into, each with an order of its own.
//! - `progress`: how far a lane is in every topic.
//! - `checkpoint`: state and progress in one file, atomically replaced.
//! - `segments`: the scorer's segments as files.
//! - `generations`: a directory of both for each scorer that began anew.
//! - `remote`: checkpoints where every machine can read them.
//! - `journal`: the decided records in the order they were decided in.
//! - `recovery`: from the newest checkpoint through the decided records to the present.
//! - `intake`: records → transactions, or dead letters.
//! - `labels`: records → labels.
//! - `lists`: records → the scorer's lists.
//! - `rule_clock`: what each rule costs.
//! - `recent`: the ids decided lately, so that a transaction that was written twice is decided once.
//! - `output`: decisions → records.
//! - `trace`: what traces say of a batch.
//! - [`rulesets`]: changing the ruleset of a running analyzer.
//! - `warm_up`: the scorer of a new ruleset, made ready beside the one that decides.
//! - `pipeline`: the loop that ties them together for one lane, on a thread of its own.
//! - [`analyzer`]: which lanes this process has.
//! - [`replay`]: the same scoring over a file.
//! - [`engine`]: the scoring engine by itself: measured, and checked against batch SQL.

pub mod analyzer;
mod checkpoint;
pub mod config;
mod durable;
pub mod engine;
mod generations;
mod intake;
mod journal;
mod labels;
mod lane;
mod lists;
pub mod metrics;
mod output;
mod pipeline;
mod progress;
mod recent;
mod recovery;
mod remote;
pub mod replay;
mod rule_clock;
pub mod rulesets;
mod segments;
mod trace;
mod warm_up;

pub use analyzer::Analyzer;
pub use config::AnalyzerConfig;
pub use rulesets::{ReloadError, RulesetStatus, Rulesets};
