//! How far the warehouse has read the log.

use std::collections::BTreeMap;

use events::topics;
use serde::{Deserialize, Serialize};

/// The topics the warehouse stores.
pub(crate) const TOPICS: [&str; 3] = [topics::DECIDED, topics::ALERTS, topics::LABELLED];

/// For each topic and partition, the offset of the next record to be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Positions(BTreeMap<String, Vec<u64>>);

impl Positions {
    /// The next offset; 0 for a partition never read.
    #[must_use]
    pub fn get(&self, topic: &str, partition: u32) -> u64 {
        self.of_topic(topic).get(partition as usize).copied().unwrap_or(0)
    }

    /// The next offsets of a topic's partitions.
    #[must_use]
    pub fn of_topic(&self, topic: &str) -> &[u64] {
        self.0.get(topic).map_or(&[], Vec::as_slice)
    }

    /// Each topic with its partitions' next offsets.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &[u64])> + Send {
        self.0.iter().map(|(topic, partitions)| (topic.as_str(), partitions.as_slice()))
    }

    pub(crate) fn set(&mut self, topic: &str, partition: u32, next_offset: u64) {
        let partitions = self.0.entry(topic.to_owned()).or_default();
        let at = partition as usize;
        if partitions.len() <= at {
            partitions.resize(at + 1, 0);
        }
        partitions[at] = next_offset;
    }

    /// Whether everything before `goal` has been read.
    #[must_use]
    pub fn reached(&self, goal: &Self) -> bool {
        goal.0.iter().all(|(topic, partitions)| {
            (0_u32..).zip(partitions).all(|(partition, &next)| self.get(topic, partition) >= next)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goal_is_reached_when_every_partition_has_reached_it() {
        let (mut here, mut goal) = (Positions::default(), Positions::default());
        goal.set("a", 1, 5);
        assert!(!here.reached(&goal));
        here.set("a", 0, 9);
        here.set("a", 1, 4);
        assert!(!here.reached(&goal));
        here.set("a", 1, 5);
        assert!(here.reached(&goal));
        assert!(!goal.reached(&here), "partition 0 is behind");
    }
}
