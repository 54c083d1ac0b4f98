//! The ids decided lately: a transaction that stands twice in the log, as two gateways that could not agree
//! may have written it, is decided once.
//!
//! How many are remembered is bounded, and so is how far apart the two may stand. It is the last of several
//! nets: a gateway writes an id that it has not seen in the log, or in Redis.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use anyhow::Context as _;
use eventlog::EventLog;
use events::{Message, TransactionId, topics};
use serde::{Deserialize, Serialize};

use crate::lane::Lane;

/// Ids remembered by a lane.
const REMEMBERED: usize = 65_536;
const READ_RECORDS: usize = 4_096;

/// The newest ids of a lane.
#[derive(Debug, Default)]
pub(crate) struct RecentIds {
    known: HashSet<TransactionId>,
    order: VecDeque<TransactionId>,
}

impl RecentIds {
    /// Reads the newest ids before some offsets of `transactions.decided`.
    pub(crate) async fn before(log: &dyn EventLog, lane: Lane, decided: &[u64]) -> anyhow::Result<Self> {
        let mut recent = Self::default();
        let share = (REMEMBERED / lane.own(decided).count().max(1)) as u64;
        for (partition, &until) in lane.own(decided) {
            let (start, _) = log.bounds(topics::DECIDED, partition).await?;
            let mut from = until.saturating_sub(share).max(start);
            while from < until {
                let records =
                    log.read(topics::DECIDED, partition, from, READ_RECORDS, Duration::ZERO).await?;
                let Some(last) = records.last() else { break };
                from = last.offset + 1;
                for record in records.iter().filter(|record| record.offset < until) {
                    let decided = DecidedId::decode(&record.value).with_context(|| {
                        format!("{}/{partition} offset {}", topics::DECIDED, record.offset)
                    })?;
                    recent.insert(decided.transaction.id);
                }
            }
        }
        Ok(recent)
    }

    /// Remembers an id. Returns whether it is new.
    pub(crate) fn insert(&mut self, id: TransactionId) -> bool {
        if !self.known.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// As much of a decided record as is looked at.
#[derive(Serialize, Deserialize)]
struct DecidedId {
    transaction: OnlyId,
}

#[derive(Serialize, Deserialize)]
struct OnlyId {
    id: TransactionId,
}

impl Message for DecidedId {
    const TYPE: &'static str = events::Decided::TYPE;
    const VERSION: u16 = events::Decided::VERSION;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_new_once_until_many_others_have_come() {
        let mut recent = RecentIds::default();
        let first = TransactionId::random();
        assert!(recent.insert(first));
        assert!(!recent.insert(first));
        for _ in 0..REMEMBERED {
            assert!(recent.insert(TransactionId::random()));
        }
        assert!(recent.insert(first), "memory is bounded");
        assert_eq!((recent.known.len(), recent.order.len()), (REMEMBERED, REMEMBERED));
    }
}
