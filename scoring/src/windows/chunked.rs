//! A growing array that never moves what it holds: growth costs one chunk, however large it is.

use std::ops::Range;

use crate::prefetch::{address, prefetch};

/// Elements per chunk, as a power of two.
const CHUNK_BITS: usize = 12;
const CHUNK: usize = 1 << CHUNK_BITS;

/// Rows of a fixed width, addressed by number, in chunks that are allocated once.
///
/// A `Vec` of two million rows would stall its owner for tens of milliseconds each time it doubles.
#[derive(Debug)]
pub(super) struct Chunked<T> {
    width: usize,
    /// Elements from one row to the next: rows lie across as few cache lines as they can.
    stride: usize,
    chunks: Vec<Box<[T]>>,
}

/// What fits the processor's nearer caches, with much beside it.
const NEAR_BYTES: usize = 1 << 18;
/// Bytes of a cache line.
const LINE: usize = 64;
/// For how many steps ahead memory is asked: they take about as long as memory does.
pub(super) const AHEAD: usize = 32;

impl<T: Clone + Default> Chunked<T> {
    /// No rows yet, each of `width` elements.
    pub(super) const fn new(width: usize) -> Self {
        let line = if size_of::<T>() < LINE { LINE / size_of::<T>() } else { 1 };
        let stride = if width < line { width.next_power_of_two() } else { width.next_multiple_of(line) };
        Self { width, stride, chunks: Vec::new() }
    }

    /// Makes sure that rows below `rows` exist; new ones hold default values.
    pub(super) fn grow(&mut self, rows: usize) {
        if self.width == 0 {
            return;
        }
        while self.chunks.len() << CHUNK_BITS < rows {
            self.chunks.push(vec![T::default(); CHUNK * self.stride].into());
        }
    }

    #[inline]
    pub(super) fn row(&self, row: usize) -> &[T] {
        let at = (row & (CHUNK - 1)) * self.stride;
        &self.chunks[row >> CHUNK_BITS][at..at + self.width]
    }

    #[inline]
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [T] {
        let at = (row & (CHUNK - 1)) * self.stride;
        &mut self.chunks[row >> CHUNK_BITS][at..at + self.width]
    }

    /// Appends the addresses of the cache lines that some elements of each of some rows are in, to ask for them
    /// before they are needed; none where all rows are near anyway.
    pub(super) fn lines(
        &self,
        elements: &Range<usize>,
        rows: impl Iterator<Item = usize>,
        out: &mut Vec<usize>,
    ) {
        if elements.is_empty() || !self.is_far() {
            return;
        }
        let in_line = (LINE / size_of::<T>()).max(1);
        // Rows begin where lines do, mostly, or lie within one.
        let from = elements.start / in_line * in_line;
        let first = |row: usize| address(self.element(row, from));
        match (elements.end - from).div_ceil(in_line) {
            1 => out.extend(rows.map(first)),
            lines => rows.for_each(|row| {
                let first = first(row);
                out.extend((0..lines).map(|line| first + line * LINE));
            }),
        }
    }

    /// Asks for the cache line that an element of a row is in. A hint: changes nothing.
    #[inline(always)]
    pub(super) fn approach(&self, row: usize, element: usize) {
        prefetch(self.element(row, element));
    }

    /// One element of a row, for those who need only its address: checks less than [`Self::row`].
    #[inline(always)]
    fn element(&self, row: usize, element: usize) -> &T {
        &self.chunks[row >> CHUNK_BITS][(row & (CHUNK - 1)) * self.stride + element]
    }

    /// Whether rows are too many for the processor's nearer caches.
    pub(super) fn is_far(&self) -> bool {
        self.bytes() > NEAR_BYTES
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * self.stride * size_of::<T>()
    }
}
