//! The spans of a batch: one for each of its transactions that is sampled.

use runtime::trace::{Kind, Span, carried, child};
use scoring::Scored;

use crate::intake::Arrived;

/// The spans, each with its transaction's place in the batch.
pub(crate) struct Spans(Vec<(usize, Span)>);

impl Spans {
    /// Begins them. From here on each transaction carries its own, for the records that come of it.
    pub(crate) fn begin(arrived: &mut [Arrived]) -> Self {
        let mut spans = Vec::new();
        for (place, arrived) in arrived.iter_mut().enumerate() {
            let Some(parent) = arrived.trace else { continue };
            let span = child("fraud-analyzer", Kind::Consumer, "decide transactions.created", parent);
            arrived.trace = carried(span.as_ref(), arrived.trace);
            spans.extend(span.map(|span| (place, span)));
        }
        Self(spans)
    }

    /// Ends them, once the batch's records are durable.
    pub(crate) fn end(self, arrived: &[Arrived], scored: &[Scored]) {
        for (place, mut span) in self.0 {
            let (arrived, decision) = (&arrived[place], &scored[place].decision);
            span.set("transaction.id", arrived.transaction.id.to_string());
            span.set("messaging.destination.partition.id", arrived.at.partition.to_string());
            span.set("messaging.batch.message_count", i64::try_from(scored.len()).unwrap_or(i64::MAX));
            span.set("decision.outcome", decision.outcome.as_str());
            span.set("decision.risk_score", i64::from(decision.risk_score));
        }
    }
}
