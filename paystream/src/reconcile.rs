//! `paystream reconcile`, and `GET /v1/reconcile` behind it: is every accepted transaction logged,
//! decided and stored, once?

mod distributed;
mod route;

use std::fmt::Write as _;
use std::sync::Arc;

use analytics::{Accepted, Report, Warehouse};
use anyhow::Context as _;
use eventlog::EventLog;
use events::TransactionId;
use gateway::Ledger;
use serde_json::Value;

pub(crate) use self::route::router;
use crate::cli::{Global, ReconcileArgs};
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::offline::Offline;
use crate::output;
use crate::source::{self, Anywhere, Source};

/// Counts that are always shown, in this order.
const PLACES: [&str; 6] = ["accepted", "logged", "decided", "stored", "missing", "duplicated"];
/// Counts that are 0 when the stores agree.
const FAULTS: [&str; 4] = ["missing", "duplicated", "unexpected", "views_differing"];

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
        analytics::reconcile(accepted, &*self.log, &*self.warehouse).await
    }
}

pub(crate) fn run(global: &Global, args: &ReconcileArgs) -> Outcome {
    let source = source::resolve_anywhere(global, &args.source, None)?;
    let accepted = args.accepted.as_deref().map(distributed::read_accepted).transpose().or_usage()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    let report = runtime.block_on(async {
        let stop = runtime::signals::listen().context("listening for signals")?;
        tokio::select! {
            report = ask(source, accepted) => Ok(report?),
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
async fn ask(source: Anywhere, accepted: Option<Accepted>) -> anyhow::Result<Value> {
    match source {
        Anywhere::Distributed(config) => {
            let report = distributed::reconcile(&config, accepted.unwrap_or(Accepted::AsLogged)).await;
            serde_json::to_value(report?).context("writing the report as JSON")
        }
        Anywhere::Whole(Source::Running(_)) if accepted.is_some() => anyhow::bail!(
            "--accepted is for the distributed system: a running `paystream up` knows by itself what it accepted"
        ),
        Anywhere::Whole(Source::Running(client)) => client.get("/v1/reconcile").await,
        Anywhere::Whole(Source::Stopped(stopped)) => {
            let offline = Offline::open(&stopped).await?;
            let report = match accepted {
                Some(accepted) => offline.reconcile(accepted).await,
                None => offline.stores(&stopped)?.reconcile().await,
            };
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
    for view in report["views"].as_array().into_iter().flatten() {
        if view["rows"] != view["rows_in_view"] || view["amount"] != view["amount_in_view"] {
            let (name, of) =
                (view["view"].as_str().unwrap_or_default(), view["table"].as_str().unwrap_or_default());
            writeln!(
                text,
                "view {name}: {} rows of {}, amount {} of {} in {of}",
                view["rows_in_view"], view["rows"], view["amount_in_view"], view["amount"]
            )
            .expect("writing to a String cannot fail");
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
