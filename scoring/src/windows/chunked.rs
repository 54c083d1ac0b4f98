//! A growing array that never moves what it holds: growth costs one chunk, however large it is.

use std::ops::Range;

use crate::prefetch::prefetch;

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
/// How many steps' memory is asked for at a time: about as much as a processor can wait for.
pub(super) const APPROACH: usize = 32;

/// Of which steps, of `all`, to ask for the memory before step `done`, a multiple of [`APPROACH`]: as many ahead as
/// take about as long as memory does.
#[inline(always)]
pub(super) fn ahead(done: usize, all: usize) -> Range<usize> {
    reach(done, all, 1)
}

/// The same for what has to be near before that can be asked for.
#[inline(always)]
pub(super) fn far_ahead(done: usize, all: usize) -> Range<usize> {
    reach(done, all, 2)
}

#[inline(always)]
fn reach(done: usize, all: usize, times: usize) -> Range<usize> {
    let from = if done == 0 { 0 } else { all.min(done + times * APPROACH) };
    from..all.min(done + (times + 1) * APPROACH)
}

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

    /// Asks for some elements of each of some rows to come, so that they are near when they are needed. A hint:
    /// where the rows are near anyway, it does nothing.
    #[inline(always)]
    pub(super) fn approach(&self, elements: Range<usize>, rows: impl Iterator<Item = usize>) {
        if self.bytes() > NEAR_BYTES {
            let in_line = (LINE / size_of::<T>()).max(1);
            // Rows begin where lines do, mostly, or lie within one.
            let from = elements.start / in_line * in_line;
            for row in rows {
                self.row(row)[from..elements.end].iter().step_by(in_line).for_each(prefetch);
            }
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * self.stride * size_of::<T>()
    }
}
