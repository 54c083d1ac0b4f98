//! Records of `transactions.created` → transactions; what cannot be one, or was decided before → a dead letter.

use bytes::Bytes;
use eventlog::{LoggedRecord, NewRecord, Position};
use events::{Message as _, Transaction, topics};
use runtime::trace::TraceContext;
use serde_json::value::RawValue;

use crate::recent::RecentIds;

/// The topic that takes what cannot be decoded.
pub(crate) const DEAD_LETTER_TOPIC: &str = "transactions.created.dlq";

/// Headers of a dead letter.
pub(crate) const REASON: &str = "reason";
pub(crate) const ORIGINAL_TOPIC: &str = "original-topic";
pub(crate) const ORIGINAL_PARTITION: &str = "original-partition";
pub(crate) const ORIGINAL_OFFSET: &str = "original-offset";

/// The largest record that may be a transaction. The gateway's are a quarter of it at the most; a decision is
/// written with the transaction it is about, and both have to fit into a record of any log.
const TRANSACTION_BYTES_MAX: usize = 256 * 1024;
/// What a dead letter keeps of a record that is larger than any transaction …
const CUT_KEY_BYTES: usize = 1_024;
const CUT_VALUE_BYTES: usize = 64 * 1024;
/// … and of a reason, which may repeat what was found.
const REASON_BYTES_MAX: usize = 1_024;

/// A transaction with the place it was read from.
#[derive(Debug, Clone)]
pub(crate) struct Arrived {
    pub(crate) at: Position,
    pub(crate) transaction: Transaction,
    /// The transaction as it was written.
    pub(crate) text: Box<RawValue>,
    /// Of sampled ones.
    pub(crate) trace: Option<TraceContext>,
}

/// Why a transaction that was decided before is a dead letter.
const REPEATED: &str = "a transaction of this id has been decided already";

/// Reads one record, and remembers its id.
pub(crate) fn read(
    partition: u32,
    record: LoggedRecord,
    recent: &mut RecentIds,
) -> Result<Arrived, NewRecord> {
    let at = Position { partition, offset: record.offset };
    if record.value.len() > TRANSACTION_BYTES_MAX {
        let bytes = record.value.len();
        let reason =
            format!("larger than a transaction may be: {bytes} bytes, at most {TRANSACTION_BYTES_MAX}");
        return Err(dead_letter(topics::CREATED, at, record, &reason));
    }
    match Transaction::decode_with_text(&record.value) {
        Ok((transaction, text)) if recent.insert(transaction.id) => {
            Ok(Arrived { at, transaction, text, trace: TraceContext::of_headers(&record.headers) })
        }
        Ok(_) => Err(dead_letter(topics::CREATED, at, record, REPEATED)),
        Err(error) => Err(dead_letter(topics::CREATED, at, record, &error.to_string())),
    }
}

/// The letter for a record of `topic` that cannot be decoded. A letter fits into any log: of a record that is
/// too large its beginning is kept, and the whole is where the letter says that it was read.
pub(crate) fn dead_letter(topic: &str, at: Position, record: LoggedRecord, reason: &str) -> NewRecord {
    let bytes = record.bytes();
    let mut reason = beginning(reason, REASON_BYTES_MAX).to_owned();
    let LoggedRecord { mut key, mut value, mut headers, timestamp_ms, .. } = record;
    if bytes > TRANSACTION_BYTES_MAX {
        key.truncate(CUT_KEY_BYTES);
        value.truncate(CUT_VALUE_BYTES);
        headers.clear();
        reason.push_str(&format!(" (of {bytes} bytes, the first {} are kept here)", value.len()));
    }
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), Bytes::from(value)));
    add(REASON, reason);
    add(ORIGINAL_TOPIC, topic.to_owned());
    add(ORIGINAL_PARTITION, at.partition.to_string());
    add(ORIGINAL_OFFSET, at.offset.to_string());
    NewRecord { topic: topics::dead_letter(topic), key, value, headers, timestamp_ms }
}

/// As much of the text as fits into so many bytes.
fn beginning(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Where a dead letter was read from.
pub(crate) fn origin(record: &LoggedRecord) -> Option<Position> {
    let header = |name: &str| {
        let (_, value) = record.headers.iter().rfind(|(n, _)| n == name)?;
        std::str::from_utf8(value).ok()?.parse::<u64>().ok()
    };
    Some(Position {
        partition: u32::try_from(header(ORIGINAL_PARTITION)?).ok()?,
        offset: header(ORIGINAL_OFFSET)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_letter_topic_is_the_one_of_the_topic_read() {
        assert_eq!(DEAD_LETTER_TOPIC, topics::dead_letter(topics::CREATED));
    }

    #[test]
    fn a_dead_letter_keeps_the_bytes_and_says_where_they_came_from() {
        let record = LoggedRecord {
            offset: 41,
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"not json"),
            headers: Vec::new(),
            timestamp_ms: 5,
        };
        let letter = read(3, record.clone(), &mut RecentIds::default()).unwrap_err();
        assert_eq!((letter.topic, &letter.value), (DEAD_LETTER_TOPIC, &record.value));
        let logged = LoggedRecord { headers: letter.headers, ..record };
        assert_eq!(origin(&logged), Some(Position { partition: 3, offset: 41 }));
    }

    #[test]
    fn whatever_was_read_its_letter_fits_into_any_log() {
        let of = |key: usize, value: Vec<u8>, header: usize| LoggedRecord {
            offset: 7,
            key: Bytes::from(vec![b'k'; key]),
            value: Bytes::from(value),
            headers: vec![("h".to_owned(), Bytes::from(vec![b'h'; header]))],
            timestamp_ms: 5,
        };
        let text = "\u{e9}".repeat(400_000);
        let typed = format!(r#"{{"type":"{}","v":1,"data":{{}}}}"#, "\u{e9}".repeat(100_000));
        for (record, is_cut) in [
            (of(16, text.into_bytes(), 0), true),
            (of(900_000, b"short".to_vec(), 0), true),
            (of(16, b"short".to_vec(), 900_000), true),
            (of(16, typed.into_bytes(), 0), false),
        ] {
            let whole = record.clone();
            let letter = read(3, record, &mut RecentIds::default()).unwrap_err();
            let logged = LoggedRecord {
                key: letter.key.clone(),
                value: letter.value.clone(),
                headers: letter.headers.clone(),
                ..whole.clone()
            };
            assert!(logged.bytes() < TRANSACTION_BYTES_MAX + 2_048, "{}", logged.bytes());
            assert_eq!(origin(&logged), Some(Position { partition: 3, offset: 7 }));
            let is_whole = letter.key == whole.key
                && letter.value == whole.value
                && letter.headers.starts_with(&whole.headers);
            assert_eq!(is_whole, !is_cut);
            assert!(whole.value.starts_with(&letter.value));
        }
    }

    #[test]
    fn what_is_larger_than_any_transaction_is_none() {
        let padded = |bytes: usize| {
            let written = Bytes::from(["{}", &" ".repeat(bytes - 2)].concat());
            let record = LoggedRecord {
                offset: 0,
                key: Bytes::new(),
                value: written,
                headers: vec![],
                timestamp_ms: 0,
            };
            let letter = read(0, record, &mut RecentIds::default()).unwrap_err();
            String::from_utf8(letter.headers[0].1.to_vec()).unwrap()
        };
        assert!(padded(TRANSACTION_BYTES_MAX).starts_with("not a message envelope"));
        assert_eq!(
            padded(TRANSACTION_BYTES_MAX + 1),
            "larger than a transaction may be: 262145 bytes, at most 262144 (of 262145 bytes, the first 65536 are kept here)"
        );
    }
}
