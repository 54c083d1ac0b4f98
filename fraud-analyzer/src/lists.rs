//! Records of `lists.changed` → the scorer's lists.
//!
//! Changes are taken in between two batches of transactions. The next decision says how far, so that recovery
//! takes them in at the same place. The topic keeps every change: what is on the lists is built from its start.

use std::time::Duration;

use anyhow::Context as _;
use eventlog::{EventLog, NewRecord, Position};
use events::{ListChange, Message as _, topics};
use scoring::Scorer;

use crate::intake::dead_letter;
use crate::lane::Lane;
use crate::metrics::Metrics;

/// Records read from a partition at a time.
const READ_RECORDS: usize = 4_096;

/// Takes changes in.
pub(crate) struct Intake<'a> {
    pub(crate) log: &'a dyn EventLog,
    pub(crate) lane: Lane,
    pub(crate) scorer: &'a mut Scorer,
    pub(crate) metrics: &'a Metrics,
}

/// What a stretch of the topic held.
#[derive(Debug, Default)]
struct Read {
    applied: u64,
    without_effect: u64,
    /// Why the first of them had none.
    example: Option<scoring::ListChangeError>,
    dead: Vec<NewRecord>,
}

impl Intake<'_> {
    /// Takes in what the topic holds by now, but for what is beyond `most` records of a partition, and moves
    /// `next` on. Returns letters for the records that are no changes.
    ///
    /// Whoever has read transactions before calls this with `u64::MAX`: a change that was acknowledged before
    /// a transaction was accepted is then in force for it.
    pub(crate) async fn take_new(&mut self, next: &mut [u64], most: u64) -> anyhow::Result<Vec<NewRecord>> {
        // At once, as each may be a question to another machine.
        let bounds =
            (0_u32..).zip(&*next).map(|(partition, _)| self.log.bounds(topics::LISTS_CHANGED, partition));
        let bounds = futures::future::try_join_all(bounds).await?;
        let until: Vec<u64> =
            next.iter().zip(bounds).map(|(next, (_, end))| end.min(next.saturating_add(most))).collect();
        self.take_until(next, &until).await
    }

    /// Takes in everything from `next` up to `until`, and moves `next` on.
    ///
    /// # Errors
    /// Also when records are missing: without them the lists would be others than decisions were made by.
    pub(crate) async fn take_until(
        &mut self,
        next: &mut [u64],
        until: &[u64],
    ) -> anyhow::Result<Vec<NewRecord>> {
        let mut read = Read::default();
        for ((partition, next), &until) in (0_u32..).zip(next).zip(until) {
            while *next < until {
                let most = usize::try_from(until - *next).unwrap_or(READ_RECORDS).min(READ_RECORDS);
                let records = self.log.read(topics::LISTS_CHANGED, partition, *next, most, Duration::ZERO);
                let records = records.await.with_context(|| missing(partition, *next))?;
                anyhow::ensure!(!records.is_empty(), missing(partition, *next));
                for record in records {
                    *next = record.offset + 1;
                    match ListChange::decode(&record.value) {
                        Ok(change) => self.apply(&change, &mut read),
                        // One letter of each.
                        Err(_) if !self.lane.is_first() => {}
                        Err(error) => {
                            let at = Position { partition, offset: record.offset };
                            let letter = dead_letter(topics::LISTS_CHANGED, at, record, &error.to_string());
                            read.dead.push(letter);
                        }
                    }
                }
            }
        }
        self.count(&read);
        Ok(read.dead)
    }

    fn apply(&mut self, change: &ListChange, read: &mut Read) {
        match self.scorer.change_list(change) {
            Ok(()) => read.applied += 1,
            Err(error) => {
                read.without_effect += 1;
                read.example.get_or_insert(error);
            }
        }
    }

    fn count(&self, read: &Read) {
        self.metrics.list_changes.inc_by(read.applied);
        if let Some(example) = &read.example {
            self.metrics.list_changes_without_effect.inc_by(read.without_effect);
            let changes = read.without_effect;
            tracing::warn!(changes, %example, "changes to lists have no effect under this ruleset");
        }
        if read.applied > 0 {
            for (list, entries) in self.scorer.list_entries() {
                let entries = i64::try_from(entries).unwrap_or(i64::MAX);
                self.metrics.list_entries.with_label_values(&[list.as_str()]).set(entries);
            }
        }
    }
}

fn missing(partition: u32, offset: u64) -> String {
    format!(
        "reading {}/{partition} from offset {offset}: without all changes the lists are not what they were; restore \
         the log from a backup",
        topics::LISTS_CHANGED
    )
}
