//! One dead letter, and what its headers say.

use bytes::Bytes;
use eventlog::{LoggedRecord, NewRecord};

/// Why the record could not be read.
pub(crate) const REASON: &str = "reason";
const ORIGINAL_TOPIC: &str = "original-topic";
const ORIGINAL_PARTITION: &str = "original-partition";
const ORIGINAL_OFFSET: &str = "original-offset";
/// Of a record that was retried: the letter it came from, as topic/partition/offset.
pub(super) const RETRY_OF: &str = "retry-of";
/// How many times the record has been appended, the first time included.
const ATTEMPT: &str = "attempt";
/// What the next letter about the same record says anew.
const REPLACED: [&str; 6] = [REASON, ORIGINAL_TOPIC, ORIGINAL_PARTITION, ORIGINAL_OFFSET, RETRY_OF, ATTEMPT];

/// A letter of a dead-letter topic.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    pub(crate) partition: u32,
    pub(crate) record: LoggedRecord,
}

/// Where a record stood in its original topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
}

impl Letter {
    pub(crate) fn reason(&self) -> &str {
        header(&self.record, REASON).unwrap_or("no reason is given")
    }

    /// Where the record stood. Two letters of the same place are about one record.
    pub(crate) fn origin(&self) -> Option<Origin> {
        let number = |name| header(&self.record, name)?.parse::<u64>().ok();
        let partition = u32::try_from(number(ORIGINAL_PARTITION)?).ok()?;
        Some(Origin { partition, offset: number(ORIGINAL_OFFSET)? })
    }

    /// The record to append to its original topic again.
    pub(crate) fn again(
        &self,
        dead_letters: &str,
        topic: &'static str,
        value: Bytes,
        timestamp_ms: i64,
    ) -> NewRecord {
        let Self { partition, record } = self;
        let attempts = header(record, ATTEMPT).and_then(|text| text.parse::<u64>().ok()).unwrap_or(1);
        let kept = record.headers.iter().filter(|(name, _)| !REPLACED.contains(&name.as_str()));
        let mut headers: Vec<(String, Bytes)> = kept.cloned().collect();
        let of = format!("{dead_letters}/{partition}/{}", record.offset);
        headers.push((RETRY_OF.to_owned(), Bytes::from(of)));
        headers.push((ATTEMPT.to_owned(), Bytes::from(attempts.saturating_add(1).to_string())));
        NewRecord { topic, key: record.key.clone(), value, headers, timestamp_ms }
    }
}

/// The letter of `dead_letters` that a record was retried from, if any: partition and offset.
pub(super) fn retried_from(dead_letters: &str, record: &LoggedRecord) -> Option<(u32, u64)> {
    let place = header(record, RETRY_OF)?.strip_prefix(dead_letters)?.strip_prefix('/')?;
    let (partition, offset) = place.split_once('/')?;
    Some((partition.parse().ok()?, offset.parse().ok()?))
}

/// Of headers of one name the last one holds: a letter's own come after those the record had.
fn header<'a>(record: &'a LoggedRecord, name: &str) -> Option<&'a str> {
    let (_, value) = record.headers.iter().rfind(|(found, _)| found == name)?;
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(headers: &[(&str, &'static str)]) -> Letter {
        let headers =
            headers.iter().map(|(name, value)| ((*name).to_owned(), Bytes::from_static(value.as_bytes())));
        let record = LoggedRecord {
            offset: 9,
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"torn"),
            headers: headers.collect(),
            timestamp_ms: 1,
        };
        Letter { partition: 2, record }
    }

    #[test]
    fn a_retry_says_which_letter_it_is_of_and_which_attempt_it_is() {
        let dead = "transactions.created.dlq";
        let first = letter(&[
            ("traceparent", "00-1"),
            ("reason", "torn"),
            ("original-topic", "transactions.created"),
            ("original-partition", "3"),
            ("original-offset", "41"),
        ]);
        assert_eq!((first.reason(), first.origin()), ("torn", Some(Origin { partition: 3, offset: 41 })));
        let again = first.again(dead, "transactions.created", Bytes::from_static(b"mended"), 5);
        let said: Vec<(&str, &[u8])> =
            again.headers.iter().map(|(name, value)| (&**name, &**value)).collect();
        let expected: [(&str, &[u8]); 3] =
            [("traceparent", b"00-1"), ("retry-of", b"transactions.created.dlq/2/9"), ("attempt", b"2")];
        assert_eq!(said, expected);
        assert_eq!((&again.key[..], &again.value[..], again.timestamp_ms), (&b"k"[..], &b"mended"[..], 5));

        let logged = LoggedRecord { headers: again.headers, ..first.record };
        assert_eq!(retried_from(dead, &logged), Some((2, 9)));
        assert_eq!(retried_from("fraud.alerts.dlq", &logged), None);
        let second = Letter { partition: 2, record: logged };
        let third = second.again(dead, "transactions.created", Bytes::new(), 6);
        assert_eq!(third.headers.iter().filter(|(name, _)| name == "attempt").count(), 1);
        assert_eq!(third.headers.last().unwrap().1, Bytes::from_static(b"3"));
    }

    #[test]
    fn of_several_headers_of_a_name_the_last_one_holds() {
        let twice = letter(&[("reason", "first"), ("reason", "second"), ("original-partition", "x")]);
        assert_eq!((twice.reason(), twice.origin()), ("second", None));
    }
}
