//! `transactions.decided` as the journal it is: the records of a lane's partitions in the lane's order, which is
//! the order of window time. So it is too for what was decided when there was another number of lanes.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::Context as _;
use eventlog::{EventLog, Position};
use events::{Decided, Message as _, topics};

use crate::lane::Lane;

/// Records read from a partition at a time.
const READ_RECORDS: usize = 2_048;

/// The decided records of a lane's partitions, merged.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Into how many lanes the partitions are divided now.
    lanes: u32,
    partitions: Vec<JournalPartition>,
}

#[derive(Debug)]
struct JournalPartition {
    number: u32,
    next_offset: u64,
    buffered: VecDeque<(Position, Decided)>,
}

impl Journal {
    /// The journal of a lane from an offset in each partition on.
    pub(crate) fn new(lane: Lane, from: &[u64]) -> Self {
        let partition = |(number, &next_offset): (u32, &u64)| JournalPartition {
            number,
            next_offset,
            buffered: VecDeque::new(),
        };
        Self { lanes: lane.of, partitions: lane.own(from).map(partition).collect() }
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
        let state = &mut self.partitions[partition];
        let number = state.number;
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
            state.buffered.push_back((Position { partition: number, offset: record.offset }, decided));
        }
        Ok(())
    }

    /// The next record before the place `until` with its position, if all before it has been appended: a
    /// record that is being appended may be seen in one partition before one before it is in another.
    pub(crate) async fn next(
        &mut self,
        log: &dyn EventLog,
        until: u64,
    ) -> anyhow::Result<Option<(Position, Decided)>> {
        let heads = self.partitions.iter().enumerate().filter_map(|(i, p)| Some((i, &p.buffered.front()?.1)));
        let before = heads.filter(|(_, decided)| decided.lanes != self.lanes || decided.seq < until);
        let first = before.min_by_key(|(_, decided)| decided.decision.window_time_us);
        let Some((partition, _)) = first else { return Ok(None) };
        let decided = self.partitions[partition].buffered.pop_front();
        if self.partitions[partition].buffered.is_empty() {
            self.fill(log, partition).await?;
        }
        Ok(decided)
    }
}
