//! A record as it is shown, and as it travels from a running system.

use std::collections::BTreeMap;

use bytes::Bytes;
use eventlog::LoggedRecord;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::mask::Mask;

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: String,
    pub(crate) headers: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(crate) content: Content,
}

/// What a record holds, by what it can be read as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Content {
    /// JSON.
    Value(Value),
    /// Text that is no JSON.
    Text(String),
    /// Neither, in hexadecimal digits.
    Hex(String),
}

impl Entry {
    pub(crate) fn new(topic: &str, partition: u32, record: &LoggedRecord, mask: Mask) -> Self {
        let mut content = Content::of(&record.value);
        match &mut content {
            Content::Value(value) => mask.value(value),
            Content::Text(text) => *text = mask.text(text),
            Content::Hex(_) => {}
        }
        // Of headers of one name the last one holds.
        let headers = record.headers.iter().map(|(name, value)| (name.clone(), mask.text(&text(value))));
        Self {
            topic: topic.to_owned(),
            partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: mask.text(&text(&record.key)),
            headers: headers.collect(),
            content,
        }
    }
}

impl Content {
    pub(crate) fn of(bytes: &[u8]) -> Self {
        match (serde_json::from_slice(bytes), std::str::from_utf8(bytes)) {
            (Ok(value), _) => Self::Value(value),
            (Err(_), Ok(text)) => Self::Text(text.to_owned()),
            (Err(_), Err(_)) => Self::Hex(hex(bytes)),
        }
    }
}

/// Bytes that are usually text.
fn text(bytes: &Bytes) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| hex(bytes), str::to_owned)
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whatever_a_record_holds_is_shown_masked_and_travels() {
        let record = |value: &'static [u8]| LoggedRecord {
            offset: 7,
            key: Bytes::from_static(b"tok_k1_0123456789abcdef"),
            value: Bytes::from_static(value),
            headers: vec![("reason".to_owned(), Bytes::from_static(b"torn"))],
            timestamp_ms: 5,
        };
        for (value, member, shown) in [
            (&br#"{"ip":"203.0.113.9"}"#[..], "value", json!({"ip": "203.0.•.•"})),
            (b"not json of a@b.c", "text", json!("not json of a•••@b.c")),
            (b"\xff\x00", "hex", json!("ff00")),
        ] {
            let entry = Entry::new("t", 3, &record(value), Mask::Personal);
            let sent = serde_json::to_value(&entry).unwrap();
            assert_eq!(sent[member], shown);
            assert_eq!(
                (&sent["key"], &sent["headers"]["reason"]),
                (&json!("tok_k1_01234567…"), &json!("torn"))
            );
            assert_eq!(serde_json::from_value::<Entry>(sent).unwrap(), entry);
        }
    }
}
