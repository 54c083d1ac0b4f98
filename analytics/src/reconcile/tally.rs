//! Counting each id at each stage, in memory that grows by some thirty bytes per id.

use std::collections::BTreeMap;

use anyhow::bail;
use events::TransactionId;
use rustc_hash::FxHashMap;

use super::{Disagreement, Report};

/// More ids than this do not fit the memory set aside (about a gigabyte).
const MAX_IDS: usize = 30_000_000;
const MAX_EXAMPLES: usize = 100;

/// A place where a transaction is to be found exactly once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Accepted,
    Logged,
    Decided,
    StoredTransaction,
    StoredDecision,
}

const STAGES: usize = 5;

/// How often an id was seen at each stage; more often than 255 times counts as 255.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    seen: [u8; STAGES],
    /// Older than all that the gateway still knows: not compared.
    too_old: bool,
}

impl Counts {
    const fn at(self, stage: Stage) -> u8 {
        self.seen[stage as usize]
    }
}

impl Stage {
    const ALL: [Self; STAGES] =
        [Self::Accepted, Self::Logged, Self::Decided, Self::StoredTransaction, Self::StoredDecision];

    const fn missing(self) -> &'static str {
        match self {
            Self::Accepted => "not_accepted",
            Self::Logged => "not_logged",
            Self::Decided => "not_decided",
            Self::StoredTransaction => "transaction_not_stored",
            Self::StoredDecision => "decision_not_stored",
        }
    }

    const fn twice(self) -> &'static str {
        match self {
            Self::Accepted => "accepted_twice",
            Self::Logged => "logged_twice",
            Self::Decided => "decided_twice",
            Self::StoredTransaction => "transaction_stored_twice",
            Self::StoredDecision => "decision_stored_twice",
        }
    }
}

/// Counts per id and stage.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: FxHashMap<TransactionId, Counts>,
    first_accepted_us: Option<i64>,
    undecided: usize,
    undecodable: u64,
    created_lost: bool,
    decided_lost: bool,
}

impl Tally {
    fn bump(&mut self, stage: Stage, id: TransactionId) -> anyhow::Result<&mut Counts> {
        if self.counts.len() >= MAX_IDS {
            bail!("more than {MAX_IDS} transactions to compare: compare a shorter time");
        }
        let counts = self.counts.entry(id).or_default();
        let had = *counts;
        counts.seen[stage as usize] = had.at(stage).saturating_add(1);
        match stage {
            Stage::Logged if had.at(Stage::Logged) == 0 && had.at(Stage::Decided) == 0 => self.undecided += 1,
            Stage::Decided if had.at(Stage::Decided) == 0 && had.at(Stage::Logged) > 0 => self.undecided -= 1,
            _ => {}
        }
        Ok(counts)
    }

    pub(super) fn accepted(&mut self, id: TransactionId, accepted_at_us: i64) -> anyhow::Result<()> {
        let first = self.first_accepted_us.map_or(accepted_at_us, |first| first.min(accepted_at_us));
        self.first_accepted_us = Some(first);
        self.bump(Stage::Accepted, id).map(|_| ())
    }

    /// Takes what is logged for what was accepted.
    pub(super) fn accept_logged(&mut self) {
        for counts in self.counts.values_mut() {
            if counts.at(Stage::Logged) > 0 {
                counts.seen[Stage::Accepted as usize] = 1;
            }
        }
    }

    /// A record of the log. What is older than all that the gateway still knows is not compared.
    pub(super) fn logged(&mut self, id: TransactionId, accepted_at_us: i64) -> anyhow::Result<()> {
        let too_old = self.first_accepted_us.is_some_and(|first| accepted_at_us < first);
        self.bump(Stage::Logged, id)?.too_old = too_old;
        Ok(())
    }

    pub(super) const fn undecodable(&mut self) {
        self.undecodable += 1;
    }

    /// A decision or a row, with whether its transaction's record is in the part of the log that was read.
    pub(super) fn add(&mut self, stage: Stage, id: TransactionId, covered: bool) -> anyhow::Result<()> {
        if covered || self.counts.contains_key(&id) {
            self.bump(stage, id)?;
        }
        Ok(())
    }

    /// Whether retention has removed records of `transactions.created` or `transactions.decided`: then
    /// what is stored once may be absent there.
    pub(super) const fn log_lost_records(&mut self, created: bool, decided: bool) {
        self.created_lost = created;
        self.decided_lost = decided;
    }

    /// How many logged transactions have no decision yet.
    pub(super) const fn undecided(&self) -> usize {
        self.undecided
    }

    /// Whether a stage's lack of the id is explained by retention.
    const fn is_excused(&self, counts: Counts) -> bool {
        let stored = counts.at(Stage::StoredTransaction) == 1 && counts.at(Stage::StoredDecision) == 1;
        stored
            && ((self.created_lost && counts.at(Stage::Logged) == 0)
                || (self.decided_lost && counts.at(Stage::Decided) == 0))
    }

    pub(super) fn report(&self) -> Report {
        let mut report = Report { undecodable: self.undecodable, ..Report::default() };
        let mut kinds = Kinds::default();
        for (&id, &counts) in &self.counts {
            if counts.too_old || self.is_excused(counts) {
                report.not_covered += 1;
            } else if counts.at(Stage::Accepted) == 0 && counts.at(Stage::Logged) == 0 {
                report.unexpected += 1;
                kinds.note("unexpected", id);
            } else {
                count(&mut report, counts);
                kinds.note_stages(id, counts);
            }
        }
        report.disagreements = kinds.into_disagreements();
        report
    }
}

fn count(report: &mut Report, counts: Counts) {
    if counts.at(Stage::Accepted) == 0 {
        report.unacknowledged += 1;
    } else {
        report.accepted += 1;
        report.logged += u64::from(counts.at(Stage::Logged));
        report.decided += u64::from(counts.at(Stage::Decided));
        report.stored += u64::from(counts.at(Stage::StoredDecision));
    }
    // Without an entry of the gateway it was not answered: that is no loss.
    let is_missing = Stage::ALL.into_iter().any(|stage| stage != Stage::Accepted && counts.at(stage) == 0);
    report.missing += u64::from(is_missing);
    report.duplicated += u64::from(counts.seen.iter().any(|&n| n > 1));
}

/// Disagreements by kind, with examples.
#[derive(Default)]
struct Kinds(BTreeMap<&'static str, (u64, Vec<TransactionId>)>);

impl Kinds {
    fn note(&mut self, kind: &'static str, id: TransactionId) {
        let (count, examples) = self.0.entry(kind).or_default();
        *count += 1;
        if examples.len() < MAX_EXAMPLES {
            examples.push(id);
        }
    }

    fn note_stages(&mut self, id: TransactionId, counts: Counts) {
        for stage in Stage::ALL {
            match counts.at(stage) {
                0 if stage != Stage::Accepted => self.note(stage.missing(), id),
                0 | 1 => {}
                _ => self.note(stage.twice(), id),
            }
        }
    }

    fn into_disagreements(self) -> Vec<Disagreement> {
        let of = |(kind, (count, mut examples)): (&'static str, (u64, Vec<TransactionId>))| {
            examples.sort_unstable();
            Disagreement { kind, count, examples }
        };
        self.0.into_iter().map(of).collect()
    }
}

/// Compares the stages' ids, each given as often as the stage holds it.
///
/// # Errors
/// When there are more ids than fit the memory bound.
pub fn compare(
    accepted: impl IntoIterator<Item = TransactionId>,
    logged: impl IntoIterator<Item = TransactionId>,
    decided: impl IntoIterator<Item = TransactionId>,
    stored_transactions: impl IntoIterator<Item = TransactionId>,
    stored_decisions: impl IntoIterator<Item = TransactionId>,
) -> anyhow::Result<Report> {
    let mut tally = Tally::default();
    accepted.into_iter().try_for_each(|id| tally.accepted(id, 0))?;
    logged.into_iter().try_for_each(|id| tally.logged(id, 0))?;
    decided.into_iter().try_for_each(|id| tally.add(Stage::Decided, id, true))?;
    stored_transactions.into_iter().try_for_each(|id| tally.add(Stage::StoredTransaction, id, true))?;
    stored_decisions.into_iter().try_for_each(|id| tally.add(Stage::StoredDecision, id, true))?;
    Ok(tally.report())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(n: usize) -> Vec<TransactionId> {
        let merchant = "m".parse().unwrap();
        (0..n).map(|i| TransactionId::derive(&merchant, &i.to_string())).collect()
    }

    /// The stages' ids, with one of them changed at one stage.
    fn report(change: impl FnOnce(&mut [Vec<TransactionId>; STAGES])) -> Report {
        let mut stages = std::array::from_fn(|_| ids(200));
        change(&mut stages);
        let [accepted, logged, decided, transactions, decisions] = stages;
        compare(accepted, logged, decided, transactions, decisions).unwrap()
    }

    #[test]
    fn stages_that_hold_the_same_ids_agree_in_any_order() {
        let report = report(|stages| stages[2].reverse());
        assert!(report.agrees());
        assert_eq!((report.accepted, report.logged, report.decided, report.stored), (200, 200, 200, 200));
        assert_eq!(report.disagreements, []);
    }

    #[test]
    fn an_id_missing_at_any_one_stage_is_found_and_named() {
        let lost = ids(200)[77];
        for stage in &Stage::ALL[1..] {
            let report = report(|stages| stages[*stage as usize].retain(|id| *id != lost));
            assert!(!report.agrees(), "{stage:?}");
            assert_eq!((report.missing, report.duplicated), (1, 0), "{stage:?}");
            let expected = [Disagreement { kind: stage.missing(), count: 1, examples: vec![lost] }];
            assert_eq!(report.disagreements, expected);
        }
    }

    #[test]
    fn an_id_doubled_at_any_one_stage_is_found_and_named() {
        let twice = ids(200)[3];
        for stage in Stage::ALL {
            let report = report(|stages| stages[stage as usize].push(twice));
            assert!(!report.agrees(), "{stage:?}");
            assert_eq!((report.missing, report.duplicated), (0, 1), "{stage:?}");
            let expected = [Disagreement { kind: stage.twice(), count: 1, examples: vec![twice] }];
            assert_eq!(report.disagreements, expected);
        }
    }

    #[test]
    fn one_lost_and_one_doubled_do_not_cancel_out() {
        let report = report(|stages| stages[4][0] = stages[4][1]);
        assert_eq!((report.stored, report.missing, report.duplicated), (200, 1, 1));
    }

    #[test]
    fn a_row_without_a_transaction_is_unexpected() {
        let report = report(|stages| stages[4].push(TransactionId::random()));
        assert_eq!((report.unexpected, report.agrees()), (1, false));
    }

    #[test]
    fn what_was_never_acknowledged_is_compared_but_is_no_loss() {
        let fine = report(|stages| stages[0].truncate(190));
        assert_eq!((fine.unacknowledged, fine.accepted, fine.agrees()), (10, 190, true));
        let undecided = report(|stages| {
            stages[0].truncate(190);
            stages[2].truncate(199);
        });
        assert_eq!((undecided.missing, undecided.agrees()), (1, false));
    }

    #[test]
    fn retention_excuses_only_what_is_stored() {
        let (removed, lost) = (ids(2)[0], ids(2)[1]);
        let mut tally = Tally::default();
        for id in [removed, lost] {
            tally.accepted(id, 5).unwrap();
        }
        tally.log_lost_records(true, true);
        for stage in [Stage::StoredTransaction, Stage::StoredDecision] {
            tally.add(stage, removed, false).unwrap();
        }
        let report = tally.report();
        assert_eq!((report.not_covered, report.missing, report.accepted), (1, 1, 1));
        assert!(report.disagreements.iter().all(|d| d.examples == [lost]));
    }

    #[test]
    fn examples_are_bounded_and_counts_are_not() {
        let report = report(|stages| stages[3].clear());
        assert_eq!((report.missing, report.disagreements[0].count), (200, 200));
        assert_eq!(report.disagreements[0].examples.len(), MAX_EXAMPLES);
    }
}
