//! What traces say of alerts: that they were recorded, and each attempt to deliver them.

use std::time::SystemTime;

use events::Alert;
use runtime::trace::{Kind, Span, TraceContext, carried, child};

use crate::receiver::Failure;
use crate::story::Story;

const COMPONENT: &str = "alerter";

/// The span of an alert that was read, if it is sampled, and what its deliveries go on from.
pub(crate) fn received(alert: &Alert, parent: Option<TraceContext>) -> (Option<Span>, Option<TraceContext>) {
    let mut span = parent.and_then(|parent| child(COMPONENT, Kind::Consumer, "record fraud.alerts", parent));
    if let Some(span) = &mut span {
        span.set("transaction.id", alert.transaction_id.to_string());
        span.set("alert.severity", alert.severity.as_str());
    }
    let context = carried(span.as_ref(), parent);
    (span, context)
}

/// The contexts of the sampled alerts that a receiver has not been told of.
pub(crate) fn contexts(story: &Story, delivered_count: u64) -> Vec<TraceContext> {
    let Story::Fraud(group) = story else { return Vec::new() };
    let new = group.traces.iter().filter(|traced| traced.number > delivered_count);
    new.filter_map(|traced| TraceContext::parse(traced.traceparent.as_bytes())).collect()
}

/// The spans of one attempt: in the trace of each sampled alert that it tells of.
pub(crate) struct Attempt(Vec<(Span, Option<Span>)>);

impl Attempt {
    pub(crate) fn begin(contexts: &[TraceContext], story: &Story, receiver: &str, failed: u32) -> Self {
        let spans = contexts.iter().filter_map(|&context| {
            let mut delivery = child(COMPONENT, Kind::Internal, "deliver alert", context)?;
            delivery.set("alert.receiver", receiver.to_owned());
            delivery.set("alert.group.id", story.id().to_string());
            delivery.set("alert.group.alerts", i64::try_from(story.count()).unwrap_or(i64::MAX));
            delivery.set("alert.attempt", i64::from(failed) + 1);
            let mut call = child(COMPONENT, Kind::Client, "notify", delivery.context());
            if let Some(call) = &mut call {
                call.rename(format!("notify {receiver}"));
            }
            Some((delivery, call))
        });
        Self(spans.collect())
    }

    /// The receiver has answered; what is left is to note it.
    pub(crate) fn called(&mut self, result: &Result<Option<i64>, Failure>) {
        let now = SystemTime::now();
        for (delivery, call) in &mut self.0 {
            let Some(mut call) = call.take() else { continue };
            if let Err(failure) = result {
                let why = failure.to_string();
                call.fail(why.clone());
                delivery.fail(why);
            }
            call.end_at(now);
        }
    }
}
