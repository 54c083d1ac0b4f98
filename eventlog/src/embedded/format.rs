//! How records, keys and positions are written to fjall.
//!
//! No checksum here: fjall keeps one over each batch of its journal and over each block of its tables,
//! and refuses to return what does not match.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::{LogError, LoggedRecord, NewRecord};

/// The first byte of every record, so that a later layout can be told apart.
const FORMAT: u8 = 1;
/// The largest record, key, value, headers and framing together.
pub(super) const MAX_RECORD_BYTES: usize = 16 * 1024 * 1024;

/// A record's key: records of a partition stand together, in the order of their offsets.
pub(super) fn record_key(partition: u32, offset: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&partition.to_be_bytes());
    key[4..].copy_from_slice(&offset.to_be_bytes());
    key
}

/// The partition and offset of a record's key.
pub(super) fn parse_record_key(key: &[u8]) -> Option<(u32, u64)> {
    let (partition, offset) = key.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*partition), u64::from_be_bytes(offset.try_into().ok()?)))
}

/// One record as bytes: format, timestamp, key, value, headers.
pub(super) fn encode(record: &NewRecord) -> Result<Bytes, LogError> {
    let headers: usize = record.headers.iter().map(|(name, value)| 8 + name.len() + value.len()).sum();
    let bytes = 1 + 8 + 4 + record.key.len() + 4 + record.value.len() + 4 + headers;
    if bytes > MAX_RECORD_BYTES {
        return Err(LogError::TooLarge { bytes, max_bytes: MAX_RECORD_BYTES });
    }
    let mut out = BytesMut::with_capacity(bytes);
    out.put_u8(FORMAT);
    out.put_i64(record.timestamp_ms);
    put(&mut out, &record.key);
    put(&mut out, &record.value);
    out.put_u32(length(record.headers.len()));
    for (name, value) in &record.headers {
        put(&mut out, name.as_bytes());
        put(&mut out, value);
    }
    Ok(out.freeze())
}

/// Reads a record back. Its parts share the memory of `bytes`.
pub(super) fn decode(offset: u64, mut bytes: Bytes) -> Option<LoggedRecord> {
    if bytes.try_get_u8().ok()? != FORMAT {
        return None;
    }
    let timestamp_ms = bytes.try_get_i64().ok()?;
    let key = take(&mut bytes)?;
    let value = take(&mut bytes)?;
    let count = bytes.try_get_u32().ok()?;
    let mut headers = Vec::new();
    for _ in 0..count {
        let name = String::from_utf8(take(&mut bytes)?.into()).ok()?;
        headers.push((name, take(&mut bytes)?));
    }
    bytes.is_empty().then_some(LoggedRecord { offset, key, value, headers, timestamp_ms })
}

/// Only the timestamp of an encoded record.
pub(super) fn decode_timestamp_ms(mut bytes: &[u8]) -> Option<i64> {
    (bytes.try_get_u8().ok()? == FORMAT).then(|| bytes.try_get_i64().ok())?
}

/// The key of a committed position.
pub(super) fn commit_key(group: &str, topic: &str, partition: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + group.len() + topic.len());
    key.put_u32(length(group.len()));
    key.put_slice(group.as_bytes());
    key.put_u32(partition);
    key.put_slice(topic.as_bytes());
    key
}

fn put(out: &mut BytesMut, part: &[u8]) {
    out.put_u32(length(part.len()));
    out.put_slice(part);
}

fn take(bytes: &mut Bytes) -> Option<Bytes> {
    let length = bytes.try_get_u32().ok()? as usize;
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

fn length(n: usize) -> u32 {
    u32::try_from(n).expect("records are bounded by MAX_RECORD_BYTES, names by their callers")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes(max: usize) -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
    }

    proptest! {
        #[test]
        fn a_record_reads_back_as_written(
            key in bytes(40),
            value in bytes(2_000),
            headers in prop::collection::vec((".{0,20}", bytes(60)), 0..5),
            timestamp_ms: i64,
            offset: u64,
        ) {
            let new = NewRecord { topic: events::topics::CREATED, key, value, headers, timestamp_ms };
            let encoded = encode(&new).unwrap();
            prop_assert_eq!(decode_timestamp_ms(&encoded), Some(timestamp_ms));
            let read = decode(offset, encoded.clone()).unwrap();
            let NewRecord { key, value, headers, .. } = new;
            prop_assert_eq!(read, LoggedRecord { offset, key, value, headers, timestamp_ms });
            // Nothing shorter or longer is a record.
            prop_assert_eq!(decode(offset, encoded.slice(..encoded.len() - 1)), None);
            prop_assert_eq!(decode(offset, [&encoded[..], &[0]].concat().into()), None);
        }

        #[test]
        fn no_bytes_make_decoding_panic(garbage in bytes(200), first in 0..3_u8) {
            let _ = decode(0, [&[first], &garbage[..]].concat().into());
            let _ = parse_record_key(&garbage);
        }

        #[test]
        fn keys_sort_by_partition_and_then_offset(a: (u32, u64), b: (u32, u64)) {
            prop_assert_eq!(record_key(a.0, a.1).cmp(&record_key(b.0, b.1)), a.cmp(&b));
            prop_assert_eq!(parse_record_key(&record_key(a.0, a.1)), Some(a));
        }

        #[test]
        fn positions_of_different_groups_have_different_keys(
            a in (".{0,8}", ".{0,8}", any::<u32>()),
            b in (".{0,8}", ".{0,8}", any::<u32>()),
        ) {
            let (key_a, key_b) = (commit_key(&a.0, &a.1, a.2), commit_key(&b.0, &b.1, b.2));
            prop_assert_eq!(key_a == key_b, a == b);
        }
    }

    #[test]
    fn a_record_beyond_the_limit_is_refused() {
        let value = Bytes::from(vec![0; MAX_RECORD_BYTES]);
        let new = NewRecord {
            topic: events::topics::CREATED,
            key: Bytes::new(),
            value,
            headers: vec![],
            timestamp_ms: 0,
        };
        assert!(matches!(encode(&new), Err(LogError::TooLarge { .. })));
    }
}
