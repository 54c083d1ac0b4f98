//! From events to the rows of the warehouse.

use datafusion::arrow::array::RecordBatch;
use events::{Alert, Decided, Label, Outcome, Reason, Transaction};

use crate::schema::{
    AlertRow, AlertRows, DecisionRow, DecisionRows, LabelRow, LabelRows, RuleHitRow, RuleHitRows, Table,
    TransactionRow, TransactionRows,
};

/// Rows of all tables, collected until they are sealed into batches.
#[derive(Default)]
pub(crate) struct Rows {
    transactions: TransactionRows,
    decisions: DecisionRows,
    rule_hits: RuleHitRows,
    alerts: AlertRows,
    labels: LabelRows,
    records: usize,
}

/// One Arrow batch per table; a table without rows has none.
pub(crate) type Batches = [Option<RecordBatch>; Table::ALL.len()];

impl Rows {
    /// How many log records the rows were made of.
    pub(crate) const fn records(&self) -> usize {
        self.records
    }

    /// The rows so far, in the order of [`Table::ALL`].
    pub(crate) fn finish(&mut self) -> Batches {
        self.records = 0;
        [
            self.transactions.finish(),
            self.decisions.finish(),
            self.rule_hits.finish(),
            self.alerts.finish(),
            self.labels.finish(),
        ]
    }

    /// One transaction, its decision and the rules it matched.
    pub(crate) fn push_decided(&mut self, decided: &Decided) {
        self.records += 1;
        let id = decided.transaction.id.to_string();
        self.push_transaction(&id, decided);
        self.push_decision(&id, decided);
        for (mode, reasons) in
            [("live", &decided.decision.reasons), ("shadow", &decided.decision.shadow_reasons)]
        {
            for (position, reason) in (0..=u16::MAX).zip(reasons) {
                self.push_rule_hit(
                    &id,
                    &decided.transaction,
                    decided.decision.outcome,
                    mode,
                    position,
                    reason,
                );
            }
        }
    }

    fn push_transaction(&mut self, id: &str, decided: &Decided) {
        let t = &decided.transaction;
        let metadata = serde_json::to_string(&t.metadata).expect("a map of strings is JSON");
        self.transactions.push(TransactionRow {
            id,
            merchant_id: t.merchant_id.as_str(),
            accepted_at: millis(t.accepted_at_us),
            livemode: t.livemode,
            amount_minor: t.amount_minor.get(),
            currency: t.currency.code(),
            reporting_amount_minor: t.reporting_amount_minor,
            card_token: t.card.token.as_str(),
            card_bin: &t.card.bin,
            card_last4: &t.card.last4,
            card_brand: &t.card.brand,
            card_exp_month: t.card.exp_month,
            card_exp_year: t.card.exp_year,
            customer_id: t.customer.id.as_deref(),
            customer_email: t.customer.email.as_deref(),
            customer_phone: t.customer.phone.as_deref(),
            device_id: t.device.id.as_deref(),
            device_ip: t.device.ip.as_deref(),
            device_user_agent: t.device.user_agent.as_deref(),
            billing_country: t.billing.country.as_deref(),
            billing_city: t.billing.city.as_deref(),
            billing_postal_code: t.billing.postal_code.as_deref(),
            shipping_country: t.shipping.country.as_deref(),
            shipping_city: t.shipping.city.as_deref(),
            shipping_postal_code: t.shipping.postal_code.as_deref(),
            location_country: t.location.as_ref().and_then(|l| l.country.as_deref()),
            location_lat: t.location.as_ref().map(|l| l.lat),
            location_lon: t.location.as_ref().map(|l| l.lon),
            mcc: t.mcc.as_deref(),
            terminal_id: t.terminal_id.as_deref(),
            metadata: &metadata,
            test_behaviour: t.test_behaviour.map(events::TestBehaviour::as_str),
            idempotency_key: t.idempotency_key.as_deref(),
            source_partition: decided.source_partition,
            source_offset: decided.source_offset,
        });
    }

    fn push_decision(&mut self, id: &str, decided: &Decided) {
        let (t, d) = (&decided.transaction, &decided.decision);
        self.decisions.push(DecisionRow {
            transaction_id: id,
            merchant_id: t.merchant_id.as_str(),
            accepted_at: millis(t.accepted_at_us),
            window_time_us: d.window_time_us,
            decided_at: millis(decided.decided_at_us),
            latency_ms: latency_ms(decided),
            outcome: d.outcome.as_str(),
            risk_score: d.risk_score,
            risk_level: d.risk_level.as_str(),
            ruleset: &d.ruleset,
            model: d.model.as_deref(),
            livemode: t.livemode,
            amount_minor: t.amount_minor.get(),
            currency: t.currency.code(),
            reporting_amount_minor: t.reporting_amount_minor,
            card_token: t.card.token.as_str(),
            card_masked: &t.card.masked(),
            seq: decided.seq,
            source_partition: decided.source_partition,
            source_offset: decided.source_offset,
        });
    }

    fn push_rule_hit(
        &mut self,
        id: &str,
        transaction: &Transaction,
        outcome: Outcome,
        mode: &str,
        position: u16,
        reason: &Reason,
    ) {
        self.rule_hits.push(RuleHitRow {
            transaction_id: id,
            merchant_id: transaction.merchant_id.as_str(),
            accepted_at: millis(transaction.accepted_at_us),
            outcome: outcome.as_str(),
            mode,
            position,
            rule: &reason.rule,
            code: &reason.code,
            message: &reason.message,
            observed: reason.observed,
            limit_value: reason.limit,
            points: reason.points,
        });
    }

    /// One alert.
    pub(crate) fn push_alert(&mut self, alert: &Alert) {
        self.records += 1;
        let reasons = serde_json::to_string(&alert.reasons).expect("reasons are JSON on the wire too");
        self.alerts.push(AlertRow {
            id: &alert.id.to_string(),
            transaction_id: &alert.transaction_id.to_string(),
            merchant_id: alert.merchant_id.as_str(),
            raised_at: millis(alert.raised_at_us),
            severity: alert.severity.as_str(),
            outcome: alert.outcome.as_str(),
            risk_score: alert.risk_score,
            card_token: alert.card_token.as_str(),
            card_masked: &alert.card_masked,
            amount_minor: alert.amount_minor.get(),
            currency: alert.currency.code(),
            livemode: alert.livemode,
            reasons: &reasons,
        });
    }

    /// One label.
    pub(crate) fn push_label(&mut self, label: &Label) {
        self.records += 1;
        self.labels.push(LabelRow {
            transaction_id: &label.transaction_id.to_string(),
            merchant_id: label.merchant_id.as_str(),
            labelled_at: millis(label.labelled_at_us),
            verdict: label.verdict.as_str(),
            source: label.source.as_str(),
            note: label.note.as_deref(),
        });
    }
}

/// Whole milliseconds of a time in microseconds, also before 1970.
pub(crate) const fn millis(us: i64) -> i64 {
    us.div_euclid(1_000)
}

/// From the gateway's acceptance to the decision. Not below zero, whatever the clocks did.
#[allow(clippy::cast_precision_loss)] // latencies are far below 2^53 microseconds
pub(crate) fn latency_ms(decided: &Decided) -> f64 {
    decided.decided_at_us.saturating_sub(decided.transaction.accepted_at_us).max(0) as f64 / 1_000.0
}
