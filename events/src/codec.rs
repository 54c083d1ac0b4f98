//! The envelope of every message: `{"type":"transaction","v":1,"data":{…}}`.
//!
//! Compatibility rule: a reader ignores fields it does not know, so a field may be added without a
//! new version; a changed meaning needs a new version, and a reader refuses versions it does not know.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A message type with a name and a version on the wire.
pub trait Message: Serialize + DeserializeOwned {
    /// The value of the envelope's `type`.
    const TYPE: &'static str;
    /// The value of the envelope's `v`.
    const VERSION: u16;

    /// The message as JSON bytes in its envelope.
    fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(&Outgoing { kind: Self::TYPE, v: Self::VERSION, data: self })
            .expect("message types have string keys and finite numbers only")
    }

    /// Reads a message back.
    ///
    /// # Errors
    /// [`DecodeError`] says whether the bytes are not an envelope, hold another type, come from an
    /// unknown version, or hold a field of the wrong form.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let envelope: Incoming<'_> =
            serde_json::from_slice(bytes).map_err(|e| DecodeError::NotAnEnvelope(e.to_string()))?;
        if envelope.kind != Self::TYPE {
            return Err(DecodeError::WrongType { expected: Self::TYPE, found: envelope.kind });
        }
        if envelope.v != Self::VERSION {
            return Err(DecodeError::UnknownVersion {
                kind: Self::TYPE,
                known: Self::VERSION,
                found: envelope.v,
            });
        }
        serde_json::from_str(envelope.data.get())
            .map_err(|e| DecodeError::Malformed { kind: Self::TYPE, reason: e.to_string() })
    }
}

#[derive(Serialize)]
struct Outgoing<'a, T> {
    #[serde(rename = "type")]
    kind: &'static str,
    v: u16,
    data: &'a T,
}

#[derive(Deserialize)]
struct Incoming<'a> {
    #[serde(rename = "type")]
    kind: String,
    v: u16,
    #[serde(borrow)]
    data: &'a RawValue,
}

/// Why bytes on a topic are not a message of the expected type.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// Not JSON, or without `type`, `v` and `data`.
    #[error("not a message envelope: {0}")]
    NotAnEnvelope(String),
    /// An envelope of another message type.
    #[error("expected a `{expected}` message, found `{found}`")]
    WrongType {
        /// The type that was asked for.
        expected: &'static str,
        /// The type the envelope names.
        found: String,
    },
    /// A version this build does not know.
    #[error(
        "`{kind}` version {found} is unknown, this build reads version {known}: upgrade the reader first"
    )]
    UnknownVersion {
        /// The message type.
        kind: &'static str,
        /// The version this build reads.
        known: u16,
        /// The version on the wire.
        found: u16,
    },
    /// The right type and version, with a field that does not fit.
    #[error("malformed `{kind}`: {reason}")]
    Malformed {
        /// The message type.
        kind: &'static str,
        /// What is wrong, and where in the data.
        reason: String,
    },
}
