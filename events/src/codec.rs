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
        encode::<Self>(self)
    }

    /// Reads a message back.
    ///
    /// # Errors
    /// [`DecodeError`] says whether the bytes are not an envelope, hold another type, come from an
    /// unknown version, or hold a field of the wrong form.
    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        match decode_usual(bytes) {
            Some(message) => Ok(message),
            None => parse(envelope::<Self>(bytes)?.get()),
        }
    }

    /// Reads a message back, with its text, so that it can be passed on as it was written.
    ///
    /// # Errors
    /// As [`Message::decode`].
    fn decode_with_text(bytes: &[u8]) -> Result<(Self, Box<RawValue>), DecodeError> {
        let text = envelope::<Self>(bytes)?;
        Ok((parse(text.get())?, text.to_owned()))
    }
}

/// Writes what is read as an `M`, which may borrow where an `M` owns.
pub(crate) fn encode<M: Message>(data: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(&Outgoing { kind: M::TYPE, v: M::VERSION, data })
        .expect("message types have string keys and finite numbers only")
}

/// Reads a message whose envelope is written as [`Message::encode`] does. Then its end need not be looked for
/// before it is read, as that of any other.
fn decode_usual<M: Message>(bytes: &[u8]) -> Option<M> {
    let rest = bytes.strip_prefix(br#"{"type":""#)?.strip_prefix(M::TYPE.as_bytes())?;
    let rest = rest.strip_prefix(br#"","v":"#)?.strip_prefix(M::VERSION.to_string().as_bytes())?;
    let data = rest.strip_prefix(br#","data":"#)?.strip_suffix(b"}")?;
    serde_json::from_str(std::str::from_utf8(data).ok()?).ok()
}

/// The text of the data, when the envelope is that of an `M`.
fn envelope<M: Message>(bytes: &[u8]) -> Result<&RawValue, DecodeError> {
    let envelope: Incoming<'_> =
        serde_json::from_slice(bytes).map_err(|e| DecodeError::NotAnEnvelope(e.to_string()))?;
    if envelope.kind != M::TYPE {
        return Err(DecodeError::WrongType { expected: M::TYPE, found: envelope.kind });
    }
    if envelope.v != M::VERSION {
        return Err(DecodeError::UnknownVersion { kind: M::TYPE, known: M::VERSION, found: envelope.v });
    }
    Ok(envelope.data)
}

fn parse<M: Message>(text: &str) -> Result<M, DecodeError> {
    serde_json::from_str(text).map_err(|e| DecodeError::Malformed { kind: M::TYPE, reason: e.to_string() })
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
