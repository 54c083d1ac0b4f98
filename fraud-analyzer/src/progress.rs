//! How far a lane is in every topic.

use eventlog::{EventLog, LogError};
use events::topics;
use serde::{Deserialize, Serialize};

use crate::lane::Lane;

/// The name under which the analyzer's position in `transactions.created` is committed.
pub(crate) const GROUP: &str = "fraud-analyzer";

/// One number per partition and topic: the next offset to read or be written, and the next place in
/// the lane's order. Of the topics keyed by card, the partitions of other lanes mean nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The `seq` of the next decision.
    pub(crate) next_seq: u64,
    /// `transactions.created`: everything before has a decision or is a dead letter.
    pub(crate) created: Vec<u64>,
    /// `transactions.decided`: everything before is part of the state.
    pub(crate) decided: Vec<u64>,
    /// `transactions.created.dlq`: everything before is counted in `created`.
    pub(crate) dead: Vec<u64>,
    /// `transactions.labelled`: everything before has been taken in.
    pub(crate) labelled: Vec<u64>,
    /// `lists.changed`: everything before has been taken in.
    pub(crate) lists: Vec<u64>,
}

impl Progress {
    /// The progress of a lane without a checkpoint: the oldest records the log still holds, but for
    /// transactions that are known to be decided even where retention has removed the decisions.
    pub(crate) async fn start(log: &dyn EventLog, lane: Lane) -> Result<Self, LogError> {
        let mut created = starts(log, topics::CREATED).await?;
        for (partition, offset) in lane.own(&mut created) {
            let committed = log.committed(GROUP, topics::CREATED, partition).await?;
            *offset = (*offset).max(committed.unwrap_or(0));
        }
        Ok(Self {
            next_seq: 0,
            created,
            decided: starts(log, topics::DECIDED).await?,
            dead: starts(log, topics::dead_letter(topics::CREATED)).await?,
            labelled: starts(log, topics::LABELLED).await?,
            lists: starts(log, topics::LISTS_CHANGED).await?,
        })
    }
}

async fn starts(log: &dyn EventLog, topic: &str) -> Result<Vec<u64>, LogError> {
    let mut offsets = Vec::new();
    for partition in 0..log.partitions(topic)? {
        offsets.push(log.bounds(topic, partition).await?.0);
    }
    Ok(offsets)
}
