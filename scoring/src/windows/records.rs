//! What a segment says beside its events: the keys that live in it, with their values, and labels.

use super::reservoir::SEGMENT_EVENTS;
use crate::binary::{Reader, Writer};
use crate::error::SnapshotError;

/// A value that is written beside its number, with what is kept of its whole history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyRecord {
    /// Which dictionary.
    pub(super) dictionary: usize,
    /// The number.
    pub(super) id: u32,
    /// The first event that is not in `history` yet.
    pub(super) since: u64,
    /// The words of its history accumulators, when they are not all zero.
    pub(super) history: Box<[u64]>,
}

impl KeyRecord {
    /// The segment that it belongs in.
    pub(super) const fn home(&self) -> u64 {
        self.since / SEGMENT_EVENTS
    }
}

/// A record and the value it is of.
pub(super) type KeyOf = (KeyRecord, Box<[u8]>);

/// What an event turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LabelRecord {
    /// The event.
    pub(super) seq: u64,
    /// Fraud, or legit.
    pub(super) fraud: bool,
}

/// What a segment says beside its events.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// Keys that live in it.
    pub(super) keys: Vec<KeyOf>,
    /// Labels that came while it was the newest one, in order; of events in it or before it.
    pub(super) labels: Vec<LabelRecord>,
}

/// Writes what a segment says beside its events, as [`read`] reads it.
#[derive(Debug, Default)]
pub(super) struct RecordsWriter {
    keys: u64,
    bytes: Writer,
}

impl RecordsWriter {
    /// Adds a key that lives in segment `segment`, and the value it stands for.
    pub(super) fn key(&mut self, segment: u64, record: &KeyRecord, value: &[u8]) {
        let out = &mut self.bytes;
        self.keys += 1;
        out.u8(u8::try_from(record.dictionary).expect("the planner allows fewer than 256 dictionaries"));
        out.u32(record.id);
        out.u16(u16::try_from(record.since - segment * SEGMENT_EVENTS).expect("it lives in this segment"));
        out.varint(value.len() as u64);
        out.raw(value);
        out.varint(record.history.len() as u64);
        record.history.iter().for_each(|&word| out.varint(word));
    }

    /// Writes them with the labels that came while `segment` was the newest, and is empty again.
    pub(super) fn end(&mut self, segment: u64, labels: &[LabelRecord], out: &mut Writer) {
        out.varint(self.keys);
        out.raw(self.bytes.as_bytes());
        self.keys = 0;
        self.bytes.clear();
        out.varint(labels.len() as u64);
        for label in labels {
            out.varint((segment + 1) * SEGMENT_EVENTS - label.seq);
            out.u8(u8::from(label.fraud));
        }
    }
}

/// Calls `key` with each key that lives in the segment that begins at `first_seq`, and the key's value. Returns
/// the labels.
pub(super) fn read(
    bytes: &[u8],
    first_seq: u64,
    mut key: impl FnMut(KeyRecord, &[u8]),
) -> Result<Vec<LabelRecord>, SnapshotError> {
    const TOO_LARGE: SnapshotError = SnapshotError::Damaged("the record of a key or a label does not fit");
    let mut input = Reader::part(bytes);
    let count = input.varint()?;
    for _ in 0..count {
        let dictionary = usize::from(input.u8()?);
        let id = input.u32()?;
        let since = first_seq.checked_add(u64::from(input.u16()?)).ok_or(TOO_LARGE)?;
        let length = usize::try_from(input.varint()?).map_err(|_| TOO_LARGE)?;
        let value = input.take(length)?;
        let words = input.varint()?;
        // Most have none, and need no list.
        let history = match words {
            0 => Box::default(),
            _ => (0..words).map(|_| input.varint()).collect::<Result<_, _>>()?,
        };
        key(KeyRecord { dictionary, id, since, history }, value);
    }
    let mut labels = Vec::new();
    let count = input.varint()?;
    for _ in 0..count {
        let back = input.varint()?;
        let seq = (first_seq + SEGMENT_EVENTS).checked_sub(back).ok_or(TOO_LARGE)?;
        labels.push(LabelRecord { seq, fraud: input.u8()? != 0 });
    }
    Ok(labels)
}
