//! Identifiers. Each has one textual form, and parses from nothing else.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A text that is not an identifier of the kind asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}")]
pub struct InvalidId {
    what: &'static str,
    expected: &'static str,
}

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(into = "String", try_from = "String")]
        pub struct $name(Uuid);

        impl $name {
            /// The identifier around a UUID.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The UUID behind the prefix.
            #[must_use]
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0.as_simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                // A bit that digits and lower-case letters have, and upper-case ones have not.
                const LOWER: u8 = 0x20;
                text.strip_prefix($prefix)
                    .filter(|hex| hex.len() == 32 && hex.bytes().fold(LOWER, |all, b| all & b) == LOWER)
                    .and_then(|hex| Uuid::try_parse(hex).ok())
                    .map(Self)
                    .ok_or(InvalidId {
                        what: $what,
                        expected: concat!("`", $prefix, "` and 32 lower-case hexadecimal digits"),
                    })
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
    };
}

uuid_id!(
    /// One transaction: `txn_` and a UUID.
    TransactionId, "txn_", "transaction id"
);
uuid_id!(
    /// One alert: `alr_` and a UUID.
    AlertId, "alr_", "alert id"
);

/// Namespace of transaction ids derived from idempotency keys. Never change it: a merchant's retry
/// after the loss of every cache is recognised by the id being the same.
const TRANSACTION_NAMESPACE: Uuid = Uuid::from_u128(0x5d0f_6a43_9e1c_4b7e_8f64_2a90_c7d1_3b58);
const ALERT_NAMESPACE: Uuid = Uuid::from_u128(0x1c9e_77d2_40ab_4d06_b1f3_93e5_5a28_6cf4);

impl TransactionId {
    /// The id of the transaction a merchant submits under an idempotency key (UUID version 5).
    #[must_use]
    pub fn derive(merchant: &MerchantId, idempotency_key: &str) -> Self {
        let name = [merchant.as_str().as_bytes(), b"\0", idempotency_key.as_bytes()].concat();
        Self(Uuid::new_v5(&TRANSACTION_NAMESPACE, &name))
    }

    /// A new id, for a transaction submitted without an idempotency key.
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }
}

impl AlertId {
    /// The id of the alert a transaction raises: the same however often it is scored again.
    #[must_use]
    pub fn derive(transaction: TransactionId) -> Self {
        Self(Uuid::new_v5(&ALERT_NAMESPACE, transaction.as_uuid().as_bytes()))
    }
}

/// A merchant: 1 to 64 of `a-z`, `0-9`, `_` and `-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct MerchantId(String);

impl MerchantId {
    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for MerchantId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        fits.then(|| Self(text.to_owned()))
            .ok_or(InvalidId { what: "merchant id", expected: "1 to 64 of a-z, 0-9, `_` and `-`" })
    }
}

/// A card after tokenisation: `tok_`, the id of the key that made it, `_`, and 32 hexadecimal digits
/// of the HMAC-SHA-256 of the card number under that key.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct CardToken(String);

impl CardToken {
    /// The token made of a key id and the first 16 bytes of the card number's HMAC.
    ///
    /// # Errors
    /// When the key id is not 1 to 16 of `a-z` and `0-9`.
    pub fn new(key_id: &str, mac: &[u8; 16]) -> Result<Self, InvalidId> {
        use fmt::Write as _;
        let mut text = format!("tok_{key_id}_");
        for byte in mac {
            write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        }
        text.parse()
    }

    /// The text of the token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CardToken {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        token_parts(text).map(|_| Self(text.to_owned())).ok_or(InvalidId {
            what: "card token",
            expected: "`tok_`, a key id, `_` and 32 hexadecimal digits",
        })
    }
}

/// The key's id and the HMAC of what is a card token.
pub(crate) fn token_parts(text: &str) -> Option<(&str, [u8; 16])> {
    let (key, digits) = text.strip_prefix("tok_")?.split_once('_')?;
    let lower_alnum = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if !(1..=16).contains(&key.len()) || !key.bytes().all(lower_alnum) || digits.len() != 32 {
        return None;
    }
    let digit = |b: u8| match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        _ => None,
    };
    let mut mac = [0; 16];
    for (byte, pair) in mac.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some((key, mac))
}

/// A list: 1 to 64 of `a-z`, `0-9` and `_`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ListId(String);

impl ListId {
    /// The text of the id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ListId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let fits = (1..=64).contains(&text.len())
            && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        fits.then(|| Self(text.to_owned()))
            .ok_or(InvalidId { what: "list id", expected: "1 to 64 of a-z, 0-9 and `_`" })
    }
}

macro_rules! text_id {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
    };
}

text_id!(MerchantId);
text_id!(CardToken);
text_id!(ListId);
