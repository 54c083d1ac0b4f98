//! What a message is about: fraud alerts, or the system itself. The queues, attempts and edits are the same.

use serde::{Deserialize, Serialize};

use crate::group::{Group, GroupId};
use crate::incident::Incident;

/// What one message per receiver tells.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Story {
    Fraud(Box<Group>),
    Incident(Box<Incident>),
}

impl Story {
    pub(crate) fn id(&self) -> GroupId {
        match self {
            Self::Fraud(group) => group.id,
            Self::Incident(incident) => incident.id,
        }
    }

    /// Goes up with everything there is to tell.
    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::Fraud(group) => group.count,
            Self::Incident(incident) => incident.count(),
        }
    }

    /// Who is told, sorted.
    pub(crate) fn receivers(&self) -> &[String] {
        match self {
            Self::Fraud(group) => &group.receivers,
            Self::Incident(incident) => &incident.receivers,
        }
    }

    /// When the last of it was recorded.
    pub(crate) fn recorded_ms(&self) -> u64 {
        match self {
            Self::Fraud(group) => group.recorded_ms,
            Self::Incident(incident) => incident.recorded_ms,
        }
    }
}
