//! What shares one message: the alerts of one card, or of one rule that strikes many cards at once.

use std::fmt;

use events::{Alert, AmountMinor, Currency, Severity};
use runtime::trace::TraceContext;
use serde::{Deserialize, Serialize};

/// How many sampled alerts a group remembers the traces of: the newest.
const TRACES_MAX: usize = 8;
/// How many different cards, merchants or currencies a message names before it says "and others".
const FEW: usize = 3;

/// The number of a group: counts up from 1 in the order in which groups open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct GroupId(pub(crate) u64);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grp_{}", self.0)
    }
}

/// What the alerts of a group have in common.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum Subject {
    /// One card.
    Card,
    /// One rule that has matched on many cards.
    Rule {
        /// The rule's id.
        rule: String,
    },
}

/// The first few different values, and whether there were more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Few {
    pub(crate) named: Vec<String>,
    pub(crate) more: bool,
}

impl Few {
    fn add(&mut self, value: &str) {
        if self.named.iter().any(|known| known == value) {
            return;
        }
        if self.named.len() < FEW {
            self.named.push(value.to_owned());
        } else {
            self.more = true;
        }
    }

    /// `a, b and others`.
    pub(crate) fn list(&self) -> String {
        let named = self.named.join(", ");
        if self.more { format!("{named} and others") } else { named }
    }
}

/// What the alerts of a group amount to in one currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Total {
    pub(crate) currency: Currency,
    pub(crate) minor: i64,
}

impl Total {
    /// As people write it; sums beyond the largest amount say so.
    fn format(&self) -> String {
        match AmountMinor::try_from(self.minor) {
            Ok(amount) => self.currency.format(amount),
            Err(_) => {
                let largest = AmountMinor::try_from(AmountMinor::MAX).expect("the maximum is an amount");
                format!("over {}", self.currency.format(largest))
            }
        }
    }
}

/// A sampled alert of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Traced {
    /// The group's count when it came.
    pub(crate) number: u64,
    /// What its deliveries go on from.
    pub(crate) traceparent: String,
}

/// Alerts that share one message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) id: GroupId,
    pub(crate) subject: Subject,
    /// Who is told, sorted.
    pub(crate) receivers: Vec<String>,
    /// How many alerts.
    pub(crate) count: u64,
    /// The highest severity among them.
    pub(crate) severity: Severity,
    /// Event time of the earliest.
    pub(crate) first_raised_us: i64,
    /// Event time of the latest.
    pub(crate) last_raised_us: i64,
    /// When the last one was recorded.
    pub(crate) recorded_ms: u64,
    /// The one to show: the most severe, then the highest score, then the latest.
    pub(crate) worst: Alert,
    pub(crate) merchants: Few,
    pub(crate) cards: Few,
    /// In the order in which the currencies came up; at most a few.
    pub(crate) totals: Vec<Total>,
    /// Whether amounts in further currencies are left out of `totals`.
    pub(crate) more_currencies: bool,
    /// The sampled ones among the newest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) traces: Vec<Traced>,
}

impl Group {
    pub(crate) fn open(
        id: GroupId,
        subject: Subject,
        receivers: Vec<String>,
        alert: &Alert,
        now_ms: u64,
    ) -> Self {
        let mut group = Self {
            id,
            subject,
            receivers,
            count: 0,
            severity: alert.severity,
            first_raised_us: alert.raised_at_us,
            last_raised_us: alert.raised_at_us,
            recorded_ms: now_ms,
            worst: alert.clone(),
            merchants: Few::default(),
            cards: Few::default(),
            totals: Vec::new(),
            more_currencies: false,
            traces: Vec::new(),
        };
        group.add(alert, now_ms);
        group
    }

    /// Takes in an alert. Returns whether it is more severe than all before it.
    pub(crate) fn add(&mut self, alert: &Alert, now_ms: u64) -> bool {
        self.count += 1;
        self.recorded_ms = now_ms;
        self.first_raised_us = self.first_raised_us.min(alert.raised_at_us);
        self.last_raised_us = self.last_raised_us.max(alert.raised_at_us);
        let rank = |a: &Alert| (a.severity, a.risk_score, a.raised_at_us);
        if rank(alert) >= rank(&self.worst) {
            self.worst = alert.clone();
        }
        self.merchants.add(alert.merchant_id.as_str());
        self.cards.add(&alert.card_masked);
        self.add_amount(alert);
        let raised = alert.severity > self.severity;
        self.severity = self.severity.max(alert.severity);
        raised
    }

    /// Remembers the trace of the alert that was added last.
    pub(crate) fn note_trace(&mut self, trace: TraceContext) {
        if self.traces.len() == TRACES_MAX {
            self.traces.remove(0);
        }
        self.traces.push(Traced { number: self.count, traceparent: trace.to_string() });
    }

    fn add_amount(&mut self, alert: &Alert) {
        let minor = alert.amount_minor.get();
        if let Some(total) = self.totals.iter_mut().find(|total| total.currency == alert.currency) {
            total.minor = total.minor.saturating_add(minor);
        } else if self.totals.len() < FEW {
            self.totals.push(Total { currency: alert.currency, minor });
        } else {
            self.more_currencies = true;
        }
    }

    /// `703.50 USD, 12.00 EUR and others`.
    pub(crate) fn amounts(&self) -> String {
        let named = self.totals.iter().map(Total::format).collect::<Vec<_>>().join(", ");
        if self.more_currencies { format!("{named} and others") } else { named }
    }
}

/// Where the open group of a card or a rule is found. The receivers are part of it, so that nobody is
/// shown an alert that was not routed to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IndexKey(pub(crate) Vec<u8>);

impl IndexKey {
    pub(crate) fn of_card(alert: &Alert, receivers: &[String]) -> Self {
        Self::new("card", alert.card_token.as_str(), alert.livemode, receivers)
    }

    /// The rule that weighs most.
    pub(crate) fn of_rule(alert: &Alert, receivers: &[String]) -> Option<(String, Self)> {
        let rule = &alert.reasons.first()?.rule;
        Some((rule.to_string(), Self::new("rule", rule, alert.livemode, receivers)))
    }

    fn new(kind: &str, name: &str, livemode: bool, receivers: &[String]) -> Self {
        let mode = if livemode { "live" } else { "test" };
        Self([kind, mode, &receivers.join(","), name].join("\0").into_bytes())
    }
}

/// What is remembered of a card or a rule while its window lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Window {
    /// Event time of the alert that began it.
    pub(crate) opened_us: i64,
    /// The open group: always there for a card, for a rule only once it is a burst.
    pub(crate) group: Option<GroupId>,
    /// How many messages about single cards the rule has caused.
    pub(crate) card_groups: u32,
}

impl Window {
    pub(crate) const fn covers(&self, raised_at_us: i64, window_ms: u64) -> bool {
        self.opened_us.abs_diff(raised_at_us) < window_ms.saturating_mul(1_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::alert;

    fn group_of(alerts: &[Alert]) -> Group {
        let mut group = Group::open(GroupId(1), Subject::Card, vec![], &alerts[0], 5);
        for alert in &alerts[1..] {
            group.add(alert, 5);
        }
        group
    }

    #[test]
    fn a_group_counts_sums_and_names_a_few() {
        let alerts: Vec<Alert> = (0..10)
            .map(|n| {
                let mut a = alert(n);
                a.merchant_id = format!("shop_{}", n % 5).parse().unwrap();
                a
            })
            .collect();
        let group = group_of(&alerts);
        assert_eq!(group.count, 10);
        assert_eq!(group.amounts(), "1005.00 USD");
        assert_eq!(group.merchants.list(), "shop_0, shop_1, shop_2 and others");
        assert_eq!(group.cards.list(), "411111••••••1111");
        assert_eq!(group.last_raised_us - group.first_raised_us, 9_000);
    }

    #[test]
    fn the_worst_alert_is_shown_even_when_milder_ones_follow() {
        let (mut severe, mut mild) = (alert(1), alert(2));
        severe.severity = Severity::Critical;
        mild.severity = Severity::Medium;
        let group = group_of(&[alert(0), severe.clone(), mild]);
        assert_eq!((group.severity, group.worst.id), (Severity::Critical, severe.id));
    }

    #[test]
    fn only_a_more_severe_alert_raises_the_group() {
        let mut group = group_of(&[alert(0)]);
        assert!(!group.add(&alert(1), 6), "the same severity");
        let mut severe = alert(2);
        severe.severity = Severity::Critical;
        assert!(group.add(&severe, 6));
        assert!(!group.add(&severe, 6), "raised already");
    }

    #[test]
    fn sums_beyond_the_largest_amount_say_so() {
        let mut a = alert(0);
        a.amount_minor = AmountMinor::MAX.try_into().unwrap();
        let group = group_of(&[a.clone(), a]);
        assert_eq!(group.amounts(), "over 9999999999.99 USD");
    }

    #[test]
    fn other_receivers_or_another_mode_never_share_a_group() {
        let (live, mut test) = (alert(1), alert(1));
        test.livemode = false;
        let (one, two) = (vec!["console".to_owned()], vec!["desk".to_owned()]);
        assert_ne!(IndexKey::of_card(&live, &one), IndexKey::of_card(&live, &two));
        assert_ne!(IndexKey::of_card(&live, &one), IndexKey::of_card(&test, &one));
        assert_eq!(IndexKey::of_card(&live, &one), IndexKey::of_card(&alert(2), &one));
    }
}
