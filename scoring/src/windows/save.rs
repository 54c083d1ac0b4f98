//! What of a state goes into segments and checkpoints, for [`restore`](super::restore) to find.

use super::accumulate::key;
use super::chunked::AHEAD;
use super::dictionary::Dictionary;
use super::records::{KeyRecord, RecordsWriter};
use super::reservoir::{CONDITIONS, KEYS, SEGMENT_EVENTS};
use super::state::WindowState;
use crate::binary::Writer;
use crate::error::ScoreError;
use crate::store::SegmentId;

/// Segments forgotten after a step: more than a step can fill.
const RETIRED_PER_STEP: usize = 2;

impl WindowState {
    /// Seals the newest segment if it is full: that of event `seq`.
    pub(super) fn seal_if_full(&mut self, seq: u64) {
        let segment = seq / SEGMENT_EVENTS;
        let Self { reservoir, records, dictionaries, new_labels, to_write, .. } = self;
        if reservoir.room() > 0 {
            return;
        }
        let families: Vec<usize> =
            (0..dictionaries.len()).map(|dictionary| reservoir.family_of(KEYS + dictionary)).collect();
        let labels_in = reservoir.family_of(CONDITIONS);
        each_live(records, dictionaries, segment, |record, value| {
            to_write[families[record.dictionary]].key(segment, record, value);
        });
        reservoir.seal_if_full(|family, out| {
            let labels = if family == labels_in { new_labels.as_slice() } else { &[] };
            to_write[family].end(segment, labels, out);
        });
        // The batch at hand may have begun the next segment.
        records.retain(|record| record.home() > segment);
        new_labels.clear();
    }

    /// Forgets segments that all tails have passed, after saving what only they say: a few at a time,
    /// so that the first event after a long silence does not wait for all of them.
    pub(super) fn retire(&mut self) -> Result<(), ScoreError> {
        for family in 0..self.reservoir.families() {
            let tails = self.layout.families[family].tails.iter().map(|&tail| self.tails[tail]);
            let oldest = tails.min().unwrap_or(self.reservoir.next_seq());
            for _ in 0..RETIRED_PER_STEP {
                let Some(number) = self.reservoir.passed_segment(family, oldest) else { break };
                self.carry(family, number)?;
                self.reservoir.forget_first(family);
            }
        }
        // A label is recorded with its event's segment or a later one: none of those is needed here. Splitting the
        // map would go through all of it.
        let first = self.reservoir.first_seq();
        while self.labels.first_key_value().is_some_and(|(&seq, _)| seq < first) {
            self.labels.pop_first();
        }
        Ok(())
    }

    /// Gives what only a segment says of keys that are needed on to the newest one.
    fn carry(&mut self, family: usize, number: u64) -> Result<(), ScoreError> {
        let (since, home) = (self.reservoir.next_seq(), self.reservoir.open_segment());
        let mut keys = std::mem::take(&mut self.homeless);
        self.reservoir.sealed_records(family, number, |record, _| keys.push(record))?;
        let mut carried: Vec<(usize, u32)> = Vec::new();
        each_live(&keys, &self.dictionaries, number, |record, _| {
            carried.push((record.dictionary, record.id));
        });
        keys.clear();
        self.homeless = keys;
        for dictionary in 0..self.dictionaries.len() {
            let has_history = self.layout.history_at[dictionary] < self.layout.words[dictionary];
            if !has_history || self.reservoir.family_of(KEYS + dictionary) != family {
                continue;
            }
            for &id in self.reservoir.sealed_column(KEYS + dictionary, number)? {
                if self.dictionaries[dictionary].is_live(key(id)) {
                    carried.push((dictionary, key(id)));
                }
            }
        }
        carried.sort_unstable();
        carried.dedup();
        for (dictionary, id) in carried {
            self.dictionaries[dictionary].rehome(id, home);
            let history = self.history(dictionary, id);
            let history = if history.iter().all(|&word| word == 0) { &[] } else { history };
            self.records.push(KeyRecord { dictionary, id, since, history: history.into() });
        }
        Ok(())
    }

    fn history(&self, dictionary: usize, id: u32) -> &[u64] {
        let from = self.layout.history_at[dictionary];
        if from == self.layout.words[dictionary] {
            return &[];
        }
        &self.words[dictionary].row(id as usize)[from..]
    }

    /// Writes what is not in sealed segments, and which of those it goes on from.
    pub(crate) fn write(&self, out: &mut Writer) {
        out.u64(self.reservoir.open_segment());
        out.u64s(&self.tails);
        for family in 0..self.reservoir.families() {
            out.u64(self.reservoir.sealed(family).start);
            out.u64s(&self.reservoir.checksums(family));
        }
        let mut open = Writer::default();
        self.reservoir.write_open(&mut open);
        let segment = self.reservoir.open_segment();
        let mut records = RecordsWriter::default();
        each_live(&self.records, &self.dictionaries, segment, |record, value| {
            records.key(segment, record, value);
        });
        records.end(segment, &self.new_labels, &mut open);
        out.bytes(open.as_bytes());
    }

    /// The sealed segments that a checkpoint now would name.
    pub(crate) fn segments(&self) -> impl Iterator<Item = SegmentId> + '_ {
        let all = (0..self.reservoir.families()).flat_map(|f| self.reservoir.sealed(f).map(move |n| (f, n)));
        all.map(|(family, number)| self.reservoir.id(family, number))
    }

    /// The segments that are not sealed yet.
    pub(crate) fn open_segments(&self) -> impl Iterator<Item = SegmentId> + '_ {
        (0..self.reservoir.families()).map(|family| self.reservoir.id(family, self.reservoir.open_segment()))
    }
}

/// Calls `then` with each of a segment's records whose key still lives in it, and the value it stands for.
fn each_live<'a>(
    records: &'a [KeyRecord],
    dictionaries: &'a [Dictionary],
    segment: u64,
    mut then: impl FnMut(&'a KeyRecord, &'a [u8]),
) {
    for (done, record) in records.iter().enumerate() {
        // Values are all over the place.
        if let Some(record) = records.get(done + AHEAD) {
            dictionaries[record.dictionary].approach_number(record.id);
        }
        // The batch at hand may have met keys in the next segment already.
        if record.home() == segment
            && let Some(value) = dictionaries[record.dictionary].value_at(record.id, segment)
        {
            then(record, value);
        }
    }
}
