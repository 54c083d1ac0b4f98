//! Lanes: the parts that the partitions are divided into. Each has windows, an order and a writer of its own,
//! and at most one process at a time.
//!
//! With one lane, all windows are exact and one process decides; another may stand by. With more, processes
//! share the lanes, and windows are exact for keys that stay in one: the log's key, which is the card.

use scoring::Ruleset;

/// The column that the log is keyed by.
const LOG_KEY: &str = "card";

/// One of the parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Lane {
    /// From 0.
    pub(crate) number: u32,
    /// How many there are.
    pub(crate) of: u32,
}

impl Lane {
    /// Whether a partition belongs to it.
    pub(crate) const fn holds(self, partition: u32) -> bool {
        partition % self.of == self.number
    }

    /// Its entries of a list with one for each partition.
    pub(crate) fn own<T>(self, all: impl IntoIterator<Item = T>) -> impl Iterator<Item = (u32, T)> {
        (0_u32..).zip(all).filter(move |&(partition, _)| self.holds(partition))
    }

    /// Whether it speaks for what is not of any partition, such as a label that cannot be read.
    pub(crate) const fn is_first(self) -> bool {
        self.number == 0
    }

    /// Its name: of its writer, its directory, and its thread.
    pub(crate) fn name(self) -> String {
        format!("lane-{}-of-{}", self.number, self.of)
    }
}

/// The features that are not exact when there are several lanes: those of windows whose events are spread over
/// lanes.
pub(crate) fn inexact_features(ruleset: &Ruleset) -> Vec<String> {
    let spread =
        ruleset.explain().into_iter().filter(|state| !state.partition_by.iter().any(|k| k == LOG_KEY));
    let mut features: Vec<String> = spread.flat_map(|state| state.features).collect();
    features.sort_unstable();
    features.dedup();
    features
}

#[cfg(test)]
mod tests {
    use scoring::RulesetSource;

    use super::*;

    #[test]
    fn every_partition_is_in_one_lane() {
        for of in 1..=5 {
            for partition in 0..16 {
                let holding = (0..of).filter(|&number| Lane { number, of }.holds(partition)).count();
                assert_eq!(holding, 1);
            }
        }
    }

    #[test]
    fn features_of_a_card_are_exact_in_any_number_of_lanes_and_those_of_a_merchant_are_not() {
        let inexact = inexact_features(&Ruleset::load(&RulesetSource::built_in()).unwrap());
        assert!(inexact.iter().any(|feature| feature.starts_with("merchant_")), "{inexact:?}");
        assert!(!inexact.iter().any(|feature| feature.starts_with("card_count_")), "{inexact:?}");
    }
}
