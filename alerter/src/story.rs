//! What a message is about: fraud alerts, or the system itself. The queues, attempts and edits are the same.

use serde::de::{Error as _, IgnoredAny};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use crate::group::{Group, GroupId};
use crate::incident::Incident;

/// What one message per receiver tells.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Story {
    Fraud(Box<Group>),
    Incident(Box<Incident>),
}

/// Only incidents have it: groups are read as they were written before there were incidents.
#[derive(Deserialize)]
struct Probe {
    fingerprint: Option<IgnoredAny>,
}

impl<'de> Deserialize<'de> for Story {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = <&RawValue>::deserialize(deserializer)?.get();
        let probe: Probe = serde_json::from_str(json).map_err(D::Error::custom)?;
        match probe.fingerprint {
            None => serde_json::from_str(json).map(Self::Fraud).map_err(D::Error::custom),
            Some(_) => serde_json::from_str(json).map(Self::Incident).map_err(D::Error::custom),
        }
    }
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
