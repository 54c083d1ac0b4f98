//! `paystream reconcile`, and `GET /v1/reconcile` behind it: is every accepted transaction logged,
//! decided and stored, once?

mod route;

use std::fmt::Write as _;
use std::sync::Arc;

use analytics::{Report, Warehouse};
use anyhow::Context as _;
use eventlog::EventLog;
use events::TransactionId;
use gateway::Ledger;
use serde_json::Value;

pub(crate) use self::route::router;
use crate::cli::{Global, ReconcileArgs};
use crate::exit::{Failure, Outcome};
use crate::offline::Offline;
use crate::output;
use crate::source::{self, Source};

/// Counts that are always shown, in this order.
const PLACES: [&str; 6] = ["accepted", "logged", "decided", "stored", "missing", "duplicated"];
/// Counts that are 0 when the stores agree.
const FAULTS: [&str; 3] = ["missing", "duplicated", "unexpected"];

/// The places a transaction has to be in.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) warehouse: Arc<Warehouse>,
}

impl Stores {
    /// Compares them, transaction by transaction.
    pub(crate) async fn reconcile(&self) -> anyhow::Result<Report> {
        let ledger = self.ledger.clone();
        let read = move || -> anyhow::Result<Vec<(TransactionId, i64)>> {
            let accepted = ledger.accepted(0);
            accepted
                .map(|entry| entry.map(|entry| (entry.id, entry.accepted_at_us)).map_err(Into::into))
                .collect()
        };
        let accepted = tokio::task::spawn_blocking(read).await.context("reading the gateway's ledger")??;
        analytics::reconcile(accepted, &*self.log, &self.warehouse).await
    }
}

pub(crate) fn run(global: &Global, args: &ReconcileArgs) -> Outcome {
    let source = source::resolve(global, &args.source)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    let report = runtime.block_on(async {
        let stop = runtime::signals::listen().context("listening for signals")?;
        tokio::select! {
            report = ask(source) => Ok(report?),
            () = stop.cancelled() => Err(Failure::Interrupted),
        }
    })?;
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print_line(&table(&report))?;
    }
    if agrees(&report) { Ok(()) } else { Err(Failure::CheckFailed) }
}

/// The report as JSON: a running system may be of another version.
async fn ask(source: Source) -> anyhow::Result<Value> {
    match source {
        Source::Running(client) => client.get("/v1/reconcile").await,
        Source::Stopped(stopped) => {
            let offline = Offline::open(&stopped).await?;
            let report = offline.stores(&stopped)?.reconcile().await;
            offline.close().await;
            serde_json::to_value(report?).context("writing the report as JSON")
        }
    }
}

fn agrees(report: &Value) -> bool {
    FAULTS.iter().all(|fault| report[*fault] == 0)
}

fn table(report: &Value) -> String {
    let mut text = String::new();
    let others = report.as_object().into_iter().flatten();
    let others = others.filter(|(name, count)| !PLACES.contains(&name.as_str()) && **count != 0);
    for name in PLACES.into_iter().chain(others.map(|(name, _)| name.as_str())) {
        if let Some(count) = report[name].as_u64() {
            writeln!(text, "{name:<14} {count:>12}").expect("writing to a String cannot fail");
        }
    }
    for disagreement in report["disagreements"].as_array().into_iter().flatten() {
        let (kind, count) = (disagreement["kind"].as_str().unwrap_or_default(), &disagreement["count"]);
        let examples = disagreement["examples"].as_array().into_iter().flatten().filter_map(Value::as_str);
        writeln!(text, "{kind}: {count}").expect("writing to a String cannot fail");
        for id in examples {
            writeln!(text, "  {id}").expect("writing to a String cannot fail");
        }
    }
    text.push_str(if agrees(report) {
        "Every accepted transaction is logged, decided and stored exactly once."
    } else {
        "The stores disagree."
    });
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_fault_is_a_disagreement_and_so_is_a_report_that_does_not_say() {
        let good = serde_json::to_value(Report { accepted: 3, ..Report::default() }).unwrap();
        assert!(agrees(&good), "{good}");
        for key in PLACES {
            assert!(good[key].is_u64(), "{key}: {good}");
        }
        for fault in FAULTS {
            let mut bad = good.clone();
            bad[fault] = json!(1);
            assert!(!agrees(&bad), "{fault}");
        }
        assert!(!agrees(&json!({})));
    }

    #[test]
    fn the_table_names_what_disagrees() {
        let text = table(&json!({
            "accepted": 2, "missing": 1, "duplicated": 0, "unexpected": 0, "undecodable": 3,
            "disagreements": [{"kind": "not_decided", "count": 1, "examples": ["txn_1"]}],
        }));
        assert!(
            text.contains("not_decided: 1\n  txn_1\n") && text.ends_with("The stores disagree."),
            "{text}"
        );
    }
}
