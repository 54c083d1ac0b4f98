//! Memory for many small records: chunks that never move, and places that are given out again.

/// A record begins at a multiple of this many bytes, so that 32 bits tell 16 GiB apart.
const UNIT: usize = 4;
const CHUNK_UNITS: usize = 1 << 16;
const CHUNK_BYTES: usize = CHUNK_UNITS * UNIT;

/// Records of any length up to a chunk, each named by its place.
#[derive(Debug, Default)]
pub(super) struct Arena {
    chunks: Vec<Box<[u8]>>,
    /// Units given out of the last chunk.
    used: usize,
    /// By length in units: places to give out again.
    free: Vec<Vec<u32>>,
}

impl Arena {
    /// Keeps a record.
    pub(super) fn put(&mut self, record: &[u8]) -> u32 {
        let units = record.len().div_ceil(UNIT);
        let at = self.free.get_mut(units).and_then(Vec::pop).unwrap_or_else(|| self.extend(units));
        let (chunk, from) = place(at);
        self.chunks[chunk][from..from + record.len()].copy_from_slice(record);
        at
    }

    fn extend(&mut self, units: usize) -> u32 {
        assert!(units <= CHUNK_UNITS, "a value is bounded to far less than a chunk");
        if self.chunks.is_empty() || self.used + units > CHUNK_UNITS {
            self.chunks.push(vec![0; CHUNK_BYTES].into());
            self.used = 0;
        }
        let at = (self.chunks.len() - 1) * CHUNK_UNITS + self.used;
        self.used += units;
        u32::try_from(at).expect("fewer than 16 GiB of entries fit in memory")
    }

    /// The record at a place, and whatever follows it.
    #[inline]
    pub(super) fn at(&self, at: u32) -> &[u8] {
        let (chunk, from) = place(at);
        &self.chunks[chunk][from..]
    }

    /// Takes a record's place back.
    pub(super) fn forget(&mut self, at: u32, record_bytes: usize) {
        let units = record_bytes.div_ceil(UNIT);
        if self.free.len() <= units {
            self.free.resize_with(units + 1, Vec::new);
        }
        self.free[units].push(at);
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let places: usize = self.free.iter().map(Vec::capacity).sum();
        self.chunks.len() * CHUNK_BYTES + places * size_of::<u32>()
    }
}

const fn place(at: u32) -> (usize, usize) {
    let at = at as usize;
    (at / CHUNK_UNITS, at % CHUNK_UNITS * UNIT)
}
