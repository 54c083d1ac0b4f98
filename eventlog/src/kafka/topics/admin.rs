//! Asking the broker for its topics, and changing them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigResource, ConfigSource, NewPartitions, NewTopic,
    OwnedResourceSpecifier, ResourceSpecifier, TopicReplication, TopicResult,
};
use rdkafka::error::KafkaResult;

use super::{ActualTopic, DeclaredTopic, Difference, diff};
use crate::LogError;
use crate::kafka::client::{self, Logs};
use crate::kafka::config::KafkaConfig;

/// Making topics takes the controller longer than a usual request.
const OPERATION_FACTOR: u32 = 3;
/// Between two looks whether a topic that was made has leaders.
const RETRY: Duration = Duration::from_millis(50);
/// Kafka takes -1 for the broker's default.
const DEFAULT_REPLICATION: i32 = -1;

/// Looks at the broker's topics, and changes them.
pub struct TopicAdmin {
    config: KafkaConfig,
    client: Arc<AdminClient<Logs>>,
}

impl TopicAdmin {
    /// An administrator for the Kafka of a configuration; does not reach out yet.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the configuration makes no sense.
    pub fn new(config: KafkaConfig) -> Result<Self, LogError> {
        if let Some((key, message)) = config.validate().into_iter().next() {
            return Err(LogError::Storage(format!("`kafka.{key}` {message}")));
        }
        if !config.is_set() {
            return Err(LogError::Storage("`kafka.brokers` names no Kafka".to_owned()));
        }
        let client = rdkafka::config::FromClientConfigAndContext::from_config_and_context(
            &client::base(&config),
            Logs,
        );
        let client = Arc::new(client.map_err(client::storage("making a Kafka client"))?);
        Ok(Self { config, client })
    }

    /// The declared topics as they are; those that do not exist are left out.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the broker does not answer.
    pub async fn actual(&self, declared: &[DeclaredTopic]) -> Result<Vec<ActualTopic>, LogError> {
        let mut topics = self.existing(declared).await?;
        let names: Vec<String> = topics.iter().map(|topic| self.config.full(&topic.name)).collect();
        if names.is_empty() {
            return Ok(topics);
        }
        let resources: Vec<ResourceSpecifier<'_>> =
            names.iter().map(|name| ResourceSpecifier::Topic(name)).collect();
        let what = "asking Kafka for the settings of topics";
        let answers =
            self.client.describe_configs(&resources, &self.options()).await.map_err(client::storage(what))?;
        for answer in answers {
            let resource = answer.map_err(|code| LogError::Storage(format!("{what}: {code}")))?;
            let OwnedResourceSpecifier::Topic(full) = &resource.specifier else { continue };
            if let Some(topic) = topics.iter_mut().find(|topic| self.config.full(&topic.name) == *full) {
                take_settings(topic, resource);
            }
        }
        Ok(topics)
    }

    /// What differs from what is declared.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the broker does not answer.
    pub async fn differences(&self, declared: &[DeclaredTopic]) -> Result<Vec<Difference>, LogError> {
        Ok(diff(declared, &self.actual(declared).await?))
    }

    /// Makes what is missing and changes what differs, and returns what it did. What
    /// [`Difference::refusal`] speaks against stays as it is. Returns once all of it is in force.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the broker does not answer or refuses; what was done before stays.
    pub async fn apply(&self, declared: &[DeclaredTopic]) -> Result<Vec<Difference>, LogError> {
        let actual = self.actual(declared).await?;
        let mut differences = diff(declared, &actual);
        differences.retain(|difference| difference.refusal().is_none());
        self.create(declared, &differences).await?;
        self.add_partitions(&differences).await?;
        self.set(declared, &actual, &differences).await?;
        self.wait_for(declared, &differences).await?;
        self.wait_for_settings(declared).await?;
        Ok(differences)
    }

    /// Deletes topics and all that is in them. For tests: no command does.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the broker does not answer or refuses.
    pub async fn delete(&self, names: &[&str]) -> Result<(), LogError> {
        let names: Vec<String> = names.iter().map(|name| self.config.full(name)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let answers = self.client.delete_topics(&names, &self.options()).await;
        self.all_done("deleting topics", answers)
    }

    fn options(&self) -> AdminOptions {
        let request = self.config.request_deadline();
        AdminOptions::new()
            .request_timeout(Some(OPERATION_FACTOR * request))
            .operation_timeout(Some(OPERATION_FACTOR * request))
    }

    async fn existing(&self, declared: &[DeclaredTopic]) -> Result<Vec<ActualTopic>, LogError> {
        let names: Vec<String> = declared.iter().map(|topic| topic.name.clone()).collect();
        let (admin, config) = (Arc::clone(&self.client), self.config.clone());
        let what = format!("asking Kafka at {} for its topics", config.brokers);
        let limit = config.request_deadline() * OPERATION_FACTOR;
        client::blocking(&what.clone(), limit, move || {
            let metadata = admin
                .inner()
                .fetch_metadata(None, config.request_deadline())
                .map_err(client::storage(&what))?;
            let found = |name: &String| {
                let full = config.full(name);
                let topic =
                    metadata.topics().iter().find(|topic| topic.name() == full && topic.error().is_none())?;
                let replicas = topic.partitions().first().map_or(0, |partition| partition.replicas().len());
                Some(ActualTopic {
                    name: name.clone(),
                    partitions: u32::try_from(topic.partitions().len()).unwrap_or(u32::MAX),
                    replication_factor: u32::try_from(replicas).unwrap_or(u32::MAX),
                    settings: BTreeMap::new(),
                    own_settings: BTreeMap::new(),
                })
            };
            Ok(names.iter().filter_map(found).collect())
        })
        .await
    }

    async fn create(&self, declared: &[DeclaredTopic], todo: &[Difference]) -> Result<(), LogError> {
        let missing = |topic: &&DeclaredTopic| {
            todo.iter().any(|d| matches!(d, Difference::Missing { topic: name, .. } if *name == topic.name))
        };
        let missing: Vec<&DeclaredTopic> = declared.iter().filter(missing).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = missing.iter().map(|topic| self.config.full(&topic.name)).collect();
        let new: Vec<NewTopic<'_>> = missing
            .iter()
            .zip(&names)
            .map(|(topic, full)| {
                let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
                let replication = topic.replication_factor.and_then(|factor| i32::try_from(factor).ok());
                let replication = TopicReplication::Fixed(replication.unwrap_or(DEFAULT_REPLICATION));
                let settings = topic.settings.iter();
                settings.fold(NewTopic::new(full, partitions, replication), |new, (key, value)| {
                    new.set(key, value)
                })
            })
            .collect();
        let answers = self.client.create_topics(&new, &self.options()).await;
        self.all_done("making topics", answers)
    }

    async fn add_partitions(&self, todo: &[Difference]) -> Result<(), LogError> {
        let more: Vec<(String, usize)> = todo
            .iter()
            .filter_map(|difference| match difference {
                Difference::Partitions { topic, declared, .. } => {
                    Some((self.config.full(topic), *declared as usize))
                }
                _ => None,
            })
            .collect();
        if more.is_empty() {
            return Ok(());
        }
        let new: Vec<NewPartitions<'_>> =
            more.iter().map(|(full, partitions)| NewPartitions::new(full, *partitions)).collect();
        let answers = self.client.create_partitions(&new, &self.options()).await;
        self.all_done("adding partitions", answers)
    }

    /// Sets what differs. The request replaces all of a topic's own settings, so those that are not declared
    /// are sent along as they are.
    async fn set(
        &self,
        declared: &[DeclaredTopic],
        actual: &[ActualTopic],
        todo: &[Difference],
    ) -> Result<(), LogError> {
        let differs = |topic: &&DeclaredTopic| {
            todo.iter().any(|d| matches!(d, Difference::Setting { topic: name, .. } if *name == topic.name))
        };
        let all: Vec<(String, BTreeMap<String, String>)> = declared
            .iter()
            .filter(differs)
            .map(|topic| {
                let found = actual.iter().find(|found| found.name == topic.name);
                let mut settings = found.map(|found| found.own_settings.clone()).unwrap_or_default();
                settings.extend(topic.settings.clone());
                (self.config.full(&topic.name), settings)
            })
            .collect();
        if all.is_empty() {
            return Ok(());
        }
        let alter: Vec<AlterConfig<'_>> = all
            .iter()
            .map(|(full, settings)| {
                let alter = AlterConfig::new(ResourceSpecifier::Topic(full));
                settings.iter().fold(alter, |alter, (key, value)| alter.set(key, value))
            })
            .collect();
        let what = "setting what topics are to be like";
        let answers =
            self.client.alter_configs(&alter, &self.options()).await.map_err(client::storage(what))?;
        let failed = answers.into_iter().filter_map(Result::err).map(|(of, code)| format!("{of:?}: {code}"));
        let failed: Vec<String> = failed.collect();
        if failed.is_empty() {
            Ok(())
        } else {
            Err(LogError::Storage(format!("{what}: {}", failed.join("; "))))
        }
    }

    fn all_done(&self, what: &str, answers: KafkaResult<Vec<TopicResult>>) -> Result<(), LogError> {
        let answers = answers.map_err(client::storage(what))?;
        let failed: Vec<String> = answers
            .into_iter()
            .filter_map(Result::err)
            .map(|(topic, code)| format!("{topic}: {code}"))
            .collect();
        if failed.is_empty() {
            return Ok(());
        }
        Err(LogError::Storage(format!("{what} at {}: {}", self.config.brokers, failed.join("; "))))
    }

    /// Waits until the broker that is asked knows what the controller has taken.
    async fn wait_for_settings(&self, declared: &[DeclaredTopic]) -> Result<(), LogError> {
        let deadline = Instant::now() + self.config.request_deadline() * OPERATION_FACTOR;
        loop {
            let mut left = self.differences(declared).await?;
            left.retain(|difference| difference.refusal().is_none());
            let Some(first) = left.first() else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(LogError::Storage(format!("applying topics: still, {first}")));
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Waits until new topics and partitions have leaders.
    async fn wait_for(&self, declared: &[DeclaredTopic], done: &[Difference]) -> Result<(), LogError> {
        let new = |topic: &&DeclaredTopic| {
            let grown = |d: &Difference| !matches!(d, Difference::Setting { .. }) && d.topic() == topic.name;
            done.iter().any(grown)
        };
        let wanted: Vec<(String, usize)> = declared
            .iter()
            .filter(new)
            .map(|topic| (self.config.full(&topic.name), topic.partitions as usize))
            .collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let (admin, limit) = (Arc::clone(&self.client), self.config.request_deadline() * OPERATION_FACTOR);
        let what = "waiting for new topics to be ready";
        client::blocking(what, 2 * limit, move || {
            let deadline = Instant::now() + limit;
            loop {
                let metadata = admin.inner().fetch_metadata(None, limit).map_err(client::storage(what))?;
                let ready = |(full, partitions): &(String, usize)| {
                    metadata.topics().iter().any(|topic| {
                        let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0);
                        topic.name() == full && led.count() == *partitions
                    })
                };
                if wanted.iter().all(ready) {
                    return Ok(());
                }
                if Instant::now() >= deadline {
                    return Err(LogError::Storage(format!("{what}: not after {} s", limit.as_secs())));
                }
                client::pause(RETRY);
            }
        })
        .await
    }
}

fn take_settings(topic: &mut ActualTopic, resource: ConfigResource) {
    for entry in resource.entries {
        let Some(value) = entry.value else { continue };
        if entry.source == ConfigSource::DynamicTopic {
            topic.own_settings.insert(entry.name.clone(), value.clone());
        }
        topic.settings.insert(entry.name, value);
    }
}
