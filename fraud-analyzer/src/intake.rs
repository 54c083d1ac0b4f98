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
    match Transaction::decode_with_text(&record.value) {
        Ok((transaction, text)) if recent.insert(transaction.id) => {
            Ok(Arrived { at, transaction, text, trace: TraceContext::of_headers(&record.headers) })
        }
        Ok(_) => Err(dead_letter(topics::CREATED, at, record, REPEATED)),
        Err(error) => Err(dead_letter(topics::CREATED, at, record, &error.to_string())),
    }
}

/// The letter for a record of `topic` that cannot be decoded.
pub(crate) fn dead_letter(topic: &str, at: Position, record: LoggedRecord, reason: &str) -> NewRecord {
    let mut headers = record.headers;
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), Bytes::from(value)));
    add(REASON, reason.to_owned());
    add(ORIGINAL_TOPIC, topic.to_owned());
    add(ORIGINAL_PARTITION, at.partition.to_string());
    add(ORIGINAL_OFFSET, at.offset.to_string());
    NewRecord {
        topic: topics::dead_letter(topic),
        key: record.key,
        value: record.value,
        headers,
        timestamp_ms: record.timestamp_ms,
    }
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
}
