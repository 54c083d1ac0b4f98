//! `transactions.decided` as the journal it is: the records of all partitions in the analyzer's order.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Context as _;
use eventlog::EventLog;
use events::{Decided, Message as _, topics};

/// Records read from a partition at a time.
const READ_RECORDS: usize = 2_048;

/// The decided records of all partitions, merged by their place in the analyzer's order.
#[derive(Debug)]
pub(crate) struct Journal {
    partitions: Vec<JournalPartition>,
}

#[derive(Debug)]
struct JournalPartition {
    next_offset: u64,
    buffered: VecDeque<Decided>,
}

impl Journal {
    /// The journal from an offset in each partition on.
    pub(crate) fn new(from: &[u64]) -> Self {
        let partition = |&next_offset: &u64| JournalPartition { next_offset, buffered: VecDeque::new() };
        Self { partitions: from.iter().map(partition).collect() }
    }

    /// Looks for more in the partitions of which everything has been taken.
    pub(crate) async fn look(&mut self, log: &dyn EventLog) -> anyhow::Result<()> {
        for partition in 0..self.partitions.len() {
            if self.partitions[partition].buffered.is_empty() {
                self.fill(log, partition).await?;
            }
        }
        Ok(())
    }

    async fn fill(&mut self, log: &dyn EventLog, partition: usize) -> anyhow::Result<()> {
        let number = u32::try_from(partition).context("too many partitions")?;
        let state = &mut self.partitions[partition];
        let records =
            log.read(topics::DECIDED, number, state.next_offset, READ_RECORDS, Duration::ZERO).await?;
        for record in records {
            let decided = Decided::decode(&record.value).with_context(|| {
                format!(
                    "{}/{number} offset {}: the analyzer's own record cannot be read",
                    topics::DECIDED,
                    record.offset
                )
            })?;
            state.next_offset = record.offset + 1;
            state.buffered.push_back(decided);
        }
        Ok(())
    }

    /// The next record before the place `until` with its partition, if all before it has been appended: a
    /// record that is being appended may be seen in one partition before one before it is in another.
    pub(crate) async fn next(
        &mut self,
        log: &dyn EventLog,
        until: u64,
    ) -> anyhow::Result<Option<(usize, Decided)>> {
        let heads = self.partitions.iter().enumerate();
        let first = heads.filter_map(|(i, p)| p.buffered.front().map(|d| (d.seq, i))).min();
        let Some((_, partition)) = first.filter(|&(seq, _)| seq < until) else { return Ok(None) };
        let decided = self.partitions[partition].buffered.pop_front();
        if self.partitions[partition].buffered.is_empty() {
            self.fill(log, partition).await?;
        }
        Ok(decided.map(|d| (partition, d)))
    }
}
