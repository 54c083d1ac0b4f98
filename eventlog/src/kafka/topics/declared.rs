//! The file of topics.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::MEMBERS;

/// The built-in file.
pub const DEFAULT_TOPICS: &str = include_str!("../../../topics.default.yaml");
const MAX_PARTITIONS: u32 = 1_024;
/// Topics whose partitions a key has to find the same number of.
const KEYED: [&str; 5] = events::topics::ALL;

/// A topic as it is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredTopic {
    /// Its name, without the configured prefix.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many replicas of each; the broker's default when not given.
    pub replication_factor: Option<u32>,
    /// Its settings, by Kafka's names.
    pub settings: BTreeMap<String, String>,
}

impl DeclaredTopic {
    /// Whether its partitions are parts of the work, so that they can be added to.
    #[must_use]
    pub fn is_membership(&self) -> bool {
        self.name.starts_with(MEMBERS)
    }
}

/// All topics as they are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicsFile {
    /// In the order of the file.
    pub topics: Vec<DeclaredTopic>,
}

/// Everything wrong with a file of topics.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct TopicsError(pub Vec<String>);

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(default)]
    defaults: RawSettings,
    topics: Vec<RawTopic>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSettings {
    partitions: Option<u32>,
    replication_factor: Option<u32>,
    min_insync_replicas: Option<u32>,
    retention_ms: Option<i64>,
    cleanup_policy: Option<CleanupPolicy>,
    max_message_bytes: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTopic {
    name: String,
    partitions: Option<u32>,
    replication_factor: Option<u32>,
    min_insync_replicas: Option<u32>,
    retention_ms: Option<i64>,
    cleanup_policy: Option<CleanupPolicy>,
    max_message_bytes: Option<u32>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CleanupPolicy {
    Delete,
    Compact,
}

impl TopicsFile {
    /// The built-in topics.
    ///
    /// # Panics
    /// Never: a test reads the file.
    #[must_use]
    pub fn built_in() -> Self {
        Self::parse(DEFAULT_TOPICS, "topics.default.yaml").expect("a test reads the built-in file")
    }

    /// Reads a file of topics.
    ///
    /// # Errors
    /// Everything that is wrong with it, each with the name of the file.
    pub fn parse(yaml: &str, file: &str) -> Result<Self, TopicsError> {
        let at = |message: String| format!("{file}: {message}");
        let raw: Raw = serde_saphyr::from_str(yaml).map_err(|e| TopicsError(vec![at(describe(&e))]))?;
        let topics: Vec<DeclaredTopic> =
            raw.topics.into_iter().map(|topic| declared(topic, &raw.defaults)).collect();
        let errors = check(&topics);
        if errors.is_empty() {
            return Ok(Self { topics });
        }
        Err(TopicsError(errors.into_iter().map(at).collect()))
    }
}

fn declared(topic: RawTopic, defaults: &RawSettings) -> DeclaredTopic {
    let mut settings = BTreeMap::new();
    let mut set = |key: &str, value: Option<String>| {
        if let Some(value) = value {
            settings.insert(key.to_owned(), value);
        }
    };
    let policy = topic.cleanup_policy.or(defaults.cleanup_policy).map(|policy| match policy {
        CleanupPolicy::Delete => "delete".to_owned(),
        CleanupPolicy::Compact => "compact".to_owned(),
    });
    set("cleanup.policy", policy);
    let number = |own: Option<u32>, default: Option<u32>| own.or(default).map(|number| number.to_string());
    set("retention.ms", topic.retention_ms.or(defaults.retention_ms).map(|ms| ms.to_string()));
    set("min.insync.replicas", number(topic.min_insync_replicas, defaults.min_insync_replicas));
    set("max.message.bytes", number(topic.max_message_bytes, defaults.max_message_bytes));
    DeclaredTopic {
        name: topic.name,
        // Nothing given is 0, which is an error with the topic's name.
        partitions: topic.partitions.or(defaults.partitions).unwrap_or_default(),
        replication_factor: topic.replication_factor.or(defaults.replication_factor),
        settings,
    }
}

fn check(topics: &[DeclaredTopic]) -> Vec<String> {
    let mut errors = Vec::new();
    let mut names = BTreeSet::new();
    for topic in topics {
        let name = &topic.name;
        if !names.insert(name.as_str()) {
            errors.push(format!("`{name}` is there twice"));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if name.is_empty() || name.len() > 120 || !name.chars().all(legal) {
            errors.push(format!(
                "`{name}` is no topic's name: 1 to 120 of a-z, A-Z, 0-9, dot, underscore, hyphen"
            ));
        }
        if !(1..=MAX_PARTITIONS).contains(&topic.partitions) {
            errors.push(format!("`{name}`: partitions must be 1 to {MAX_PARTITIONS}"));
        }
        if topic.replication_factor == Some(0) {
            errors.push(format!("`{name}`: replication_factor must be at least 1"));
        }
        if topic.settings.get("retention.ms").and_then(|ms| ms.parse().ok()).is_some_and(|ms: i64| ms < -1) {
            errors.push(format!("`{name}`: retention_ms must be -1 (for ever) or more"));
        }
    }
    let needed = events::topics::ALL.into_iter().chain(events::topics::DEAD_LETTERS);
    for needed in needed.chain(events::topics::INTERNAL) {
        if !names.contains(needed) {
            errors.push(format!("`{needed}` is missing"));
        }
    }
    let keyed: Vec<&DeclaredTopic> =
        topics.iter().filter(|topic| KEYED.contains(&topic.name.as_str())).collect();
    if let Some(other) = keyed.iter().find(|topic| topic.partitions != keyed[0].partitions) {
        errors.push(format!(
            "`{}` has {} partitions and `{}` {}: they must have the same number, as one card is in the partition \
             of one number everywhere",
            other.name, other.partitions, keyed[0].name, keyed[0].partitions
        ));
    }
    errors
}

/// What serde_saphyr says, on one line that starts with the line number.
fn describe(error: &serde_saphyr::Error) -> String {
    let place = error.location().map_or_else(String::new, |at| format!("line {}: ", at.line()));
    let message = error.without_snippet().to_string();
    format!("{place}{}", message.lines().next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(yaml: &str) -> Vec<String> {
        TopicsFile::parse(yaml, "t.yaml").map(|_| ()).unwrap_err().0
    }

    #[test]
    fn the_built_in_file_declares_every_topic_and_keeps_lists_for_ever() {
        let file = TopicsFile::built_in();
        let lists = file.topics.iter().find(|topic| topic.name == events::topics::LISTS_CHANGED).unwrap();
        assert_eq!(lists.settings["retention.ms"], "-1");
        assert_eq!(lists.settings["cleanup.policy"], "delete");
        assert_eq!(lists.partitions, 4);
        let kept_whole = file.topics.iter().filter(|topic| topic.settings["retention.ms"] == "-1");
        assert!(kept_whole.map(|topic| topic.name.as_str()).all(events::topics::is_kept_whole));
        assert_eq!(file.topics.iter().filter(|topic| topic.is_membership()).count(), 3);
    }

    #[test]
    fn all_errors_are_named_at_once() {
        let without = DEFAULT_TOPICS.replace("  - name: fraud.alerts\n", "  - name: fraud.allerts\n");
        assert_eq!(errors_of(&without), ["t.yaml: `fraud.alerts` is missing"]);
        let wrong = DEFAULT_TOPICS
            .replace("  - name: fraud.alerts\n", "  - name: fraud.alerts\n    partitions: 8\n")
            .replace(
                "  - name: members.alerter\n    partitions: 1\n",
                "  - name: members.alerter\n    partitions: 0\n",
            );
        let errors = errors_of(&wrong);
        assert!(errors[0].contains("`members.alerter`: partitions must be 1 to 1024"), "{errors:?}");
        assert!(errors[1].contains("`fraud.alerts` has 8 partitions"), "{errors:?}");
    }

    #[test]
    fn unknown_keys_are_errors_with_their_line() {
        let errors = errors_of("topics:\n  - name: a\n    retention: 3\n");
        assert!(errors[0].starts_with("t.yaml: line 3: "), "{errors:?}");
    }
}
