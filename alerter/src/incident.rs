//! Something wrong with the system itself, from when Alertmanager says so until it says that it is over.

use std::collections::BTreeMap;

use events::Severity;
use serde::{Deserialize, Serialize};

use crate::group::GroupId;

/// What Alertmanager says of one alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Notification {
    /// The same for everything that is said of one alert: a hash of its labels.
    pub(crate) fingerprint: String,
    /// The alert's name.
    pub(crate) name: String,
    pub(crate) severity: Severity,
    /// What a person is to read first; may be empty.
    pub(crate) summary: String,
    /// The other labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// Where to read on.
    pub(crate) link: Option<String>,
    pub(crate) started_us: i64,
    /// Set when it is over.
    pub(crate) ended_us: Option<i64>,
}

/// One alert of the infrastructure, told in one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Incident {
    pub(crate) id: GroupId,
    pub(crate) fingerprint: String,
    pub(crate) name: String,
    pub(crate) severity: Severity,
    pub(crate) summary: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) link: Option<String>,
    pub(crate) started_us: i64,
    pub(crate) ended_us: Option<i64>,
    /// Who is told, sorted.
    pub(crate) receivers: Vec<String>,
    pub(crate) recorded_ms: u64,
}

impl Incident {
    pub(crate) fn open(id: GroupId, said: Notification, receivers: Vec<String>, now_ms: u64) -> Self {
        Self {
            id,
            fingerprint: said.fingerprint,
            name: said.name,
            severity: said.severity,
            summary: said.summary,
            labels: said.labels,
            link: said.link,
            started_us: said.started_us,
            ended_us: said.ended_us,
            receivers,
            recorded_ms: now_ms,
        }
    }

    /// It began, and it ended: each is told once.
    pub(crate) fn count(&self) -> u64 {
        1 + u64::from(self.ended_us.is_some())
    }

    /// Takes in that it is over.
    pub(crate) fn end(&mut self, said: Notification, now_ms: u64) {
        self.ended_us = said.ended_us;
        // Annotations may say something else by now.
        self.summary = said.summary;
        self.recorded_ms = now_ms;
    }
}
