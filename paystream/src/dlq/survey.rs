//! What lies in the dead-letter topics.

use std::collections::BTreeMap;

use events::topics;
use serde::{Deserialize, Serialize};

use super::desk::Desk;

/// Reasons that are told apart; further ones are counted together.
const REASONS_MAX: usize = 100;
const OTHER_REASONS: &str = "(other reasons)";
/// Letters looked at in one go.
const STEP: usize = 4_096;

/// The open letters of one dead-letter topic.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Survey {
    pub(crate) topic: String,
    /// Records with an open letter.
    pub(crate) open: u64,
    /// Further letters about records that have one, open or dealt with.
    pub(crate) repeated: u64,
    /// Of the records' own times, in milliseconds since the Unix epoch.
    pub(crate) oldest_ms: Option<i64>,
    pub(crate) newest_ms: Option<i64>,
    /// Most frequent first.
    pub(crate) reasons: Vec<Reason>,
}

/// A reason and how many open letters give it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reason {
    pub(crate) reason: String,
    pub(crate) count: u64,
}

pub(crate) async fn survey(desk: &mut Desk) -> anyhow::Result<Vec<Survey>> {
    let mut surveys = Vec::new();
    for topic in topics::DEAD_LETTERS {
        surveys.push(of_topic(desk, topic).await?);
    }
    Ok(surveys)
}

pub(crate) async fn of_topic(desk: &mut Desk, topic: &'static str) -> anyhow::Result<Survey> {
    let until = desk.ends(topic).await?;
    let mut found = Survey { topic: topic.to_owned(), ..Survey::default() };
    let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
    let mut met = std::collections::HashSet::new();
    let mut from = None;
    loop {
        let taken = desk.peek(topic, from, &until, STEP).await?;
        found.repeated += taken.repeated + taken.appended_before;
        if taken.letters.is_empty() && taken.repeated + taken.appended_before == 0 {
            break;
        }
        for letter in &taken.letters {
            if letter.origin().is_some_and(|origin| !met.insert(origin)) {
                found.repeated += 1;
                continue;
            }
            found.open += 1;
            let time = letter.record.timestamp_ms;
            found.oldest_ms = Some(found.oldest_ms.map_or(time, |oldest| oldest.min(time)));
            found.newest_ms = Some(found.newest_ms.map_or(time, |newest| newest.max(time)));
            let reason = kind(letter.reason());
            let full = reasons.len() >= REASONS_MAX && !reasons.contains_key(reason);
            *reasons.entry(if full { OTHER_REASONS } else { reason }.to_owned()).or_default() += 1;
        }
        from = Some(taken.next());
    }
    found.reasons = reasons.into_iter().map(|(reason, count)| Reason { reason, count }).collect();
    found.reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
    Ok(found)
}

/// The reason without where in the record it was found, so that letters of one kind count together.
fn kind(reason: &str) -> &str {
    let place = |end: &str| end.chars().all(|c| c.is_ascii_digit() || " column".contains(c));
    match reason.rsplit_once(" at line ") {
        Some((kind, end)) if place(end) => kind,
        _ => reason,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_count_together_wherever_in_the_record_they_were_found() {
        assert_eq!(
            kind("malformed `alert`: missing field `id` at line 1 column 42"),
            "malformed `alert`: missing field `id`"
        );
        assert_eq!(kind("version 2 is unknown"), "version 2 is unknown");
        assert_eq!(kind("no cards at line 4 of the shop"), "no cards at line 4 of the shop");
    }
}
