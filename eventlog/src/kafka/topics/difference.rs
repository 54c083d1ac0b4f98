//! What differs between the declared topics and the broker's.

use std::collections::BTreeMap;

use serde::Serialize;

use super::DeclaredTopic;

/// A topic as the broker has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActualTopic {
    /// Its name, without the configured prefix.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas of the first partition.
    pub replication_factor: u32,
    /// All settings in force.
    pub settings: BTreeMap<String, String>,
    /// Those of them that were set for this topic.
    pub own_settings: BTreeMap<String, String>,
}

/// One thing that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Difference {
    /// The topic does not exist.
    Missing {
        /// The topic.
        topic: String,
        /// How many partitions it is to have.
        partitions: u32,
    },
    /// It has another number of partitions.
    Partitions {
        /// The topic.
        topic: String,
        /// As declared.
        declared: u32,
        /// As it is.
        actual: u32,
    },
    /// It has another number of replicas.
    Replication {
        /// The topic.
        topic: String,
        /// As declared.
        declared: u32,
        /// As it is.
        actual: u32,
    },
    /// A setting has another value.
    Setting {
        /// The topic.
        topic: String,
        /// The setting, by Kafka's name.
        key: String,
        /// As declared.
        declared: String,
        /// As it is.
        actual: Option<String>,
    },
}

impl Difference {
    /// The topic it is about.
    #[must_use]
    pub fn topic(&self) -> &str {
        match self {
            Self::Missing { topic, .. }
            | Self::Partitions { topic, .. }
            | Self::Replication { topic, .. }
            | Self::Setting { topic, .. } => topic,
        }
    }

    /// Why `apply` leaves it alone, if it does.
    #[must_use]
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Missing { .. } | Self::Setting { .. } => None,
            Self::Partitions { topic, declared, actual } => {
                if !topic.starts_with(super::MEMBERS) {
                    return Some(
                        "more or fewer partitions would take cards to other ones, away from their earlier records: \
                         declare what is there, or move to new topics with another kafka.topic_prefix"
                            .to_owned(),
                    );
                }
                (declared < actual).then(|| {
                    "Kafka takes no partitions away: stop its members, delete the topic, which holds nothing, and \
                     apply again"
                        .to_owned()
                })
            }
            Self::Replication { .. } => Some(
                "replicas are moved with Kafka's own kafka-reassign-partitions, as it copies all of the data"
                    .to_owned(),
            ),
        }
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing { topic, partitions } => {
                write!(f, "{topic}: does not exist, declared with {partitions} partitions")
            }
            Self::Partitions { topic, declared, actual } => {
                write!(f, "{topic}: {actual} partitions, declared {declared}")
            }
            Self::Replication { topic, declared, actual } => {
                write!(f, "{topic}: {actual} replicas, declared {declared}")
            }
            Self::Setting { topic, key, declared, actual } => {
                let actual = actual.as_deref().unwrap_or("not set");
                write!(f, "{topic}: {key} is {actual}, declared {declared}")
            }
        }
    }
}

/// What differs. Topics that are not declared are not looked at, nor are settings.
#[must_use]
pub fn diff(declared: &[DeclaredTopic], actual: &[ActualTopic]) -> Vec<Difference> {
    let mut differences = Vec::new();
    for topic in declared {
        let name = topic.name.clone();
        let Some(found) = actual.iter().find(|found| found.name == topic.name) else {
            differences.push(Difference::Missing { topic: name, partitions: topic.partitions });
            continue;
        };
        if found.partitions != topic.partitions {
            let (declared, actual) = (topic.partitions, found.partitions);
            differences.push(Difference::Partitions { topic: name.clone(), declared, actual });
        }
        if let Some(declared) = topic.replication_factor.filter(|&factor| factor != found.replication_factor)
        {
            let actual = found.replication_factor;
            differences.push(Difference::Replication { topic: name.clone(), declared, actual });
        }
        for (key, declared) in &topic.settings {
            let actual = found.settings.get(key);
            if actual != Some(declared) {
                differences.push(Difference::Setting {
                    topic: name.clone(),
                    key: key.clone(),
                    declared: declared.clone(),
                    actual: actual.cloned(),
                });
            }
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::topics::TopicsFile;

    fn as_declared(topic: &DeclaredTopic) -> ActualTopic {
        ActualTopic {
            name: topic.name.clone(),
            partitions: topic.partitions,
            replication_factor: 1,
            settings: topic.settings.clone(),
            own_settings: topic.settings.clone(),
        }
    }

    #[test]
    fn what_is_as_declared_does_not_differ_and_each_deviation_is_named() {
        let declared = TopicsFile::built_in().topics;
        let mut actual: Vec<ActualTopic> = declared.iter().map(as_declared).collect();
        assert_eq!(diff(&declared, &actual), []);
        actual.remove(0);
        actual[0].partitions = 3;
        actual[1].settings.insert("retention.ms".to_owned(), "5".to_owned());
        let differences = diff(&declared, &actual);
        let lines: Vec<String> = differences.iter().map(Difference::to_string).collect();
        assert_eq!(
            lines,
            [
                "transactions.created: does not exist, declared with 4 partitions",
                "transactions.decided: 3 partitions, declared 4",
                "transactions.labelled: retention.ms is 5, declared 604800000",
            ]
        );
        let refused: Vec<bool> =
            differences.iter().map(|difference| difference.refusal().is_some()).collect();
        assert_eq!(refused, [false, true, false]);
    }

    #[test]
    fn only_members_topics_get_more_partitions() {
        let partitions = |topic: &str, declared, actual| Difference::Partitions {
            topic: topic.to_owned(),
            declared,
            actual,
        };
        assert_eq!(partitions("members.alerter", 4, 1).refusal(), None);
        assert!(partitions("members.alerter", 1, 4).refusal().unwrap().contains("takes no partitions away"));
        assert!(partitions("fraud.alerts", 8, 4).refusal().unwrap().contains("topic_prefix"));
    }
}
