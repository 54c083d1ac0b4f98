//! A growing array that never moves what it holds: growth costs one chunk, however large it is.

use std::ops::Range;

use crate::prefetch::{address, prefetch_at};

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
    /// Where each chunk is.
    begins: Vec<usize>,
}

/// Cache lines in a row of a [`Chunked`] that has many: bytes from the row's beginning, and from the first line to the
/// last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    from: usize,
    more: usize,
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
        Self { width, stride, chunks: Vec::new(), begins: Vec::new() }
    }

    /// Makes sure that rows below `rows` exist; new ones hold default values.
    pub(super) fn grow(&mut self, rows: usize) {
        if self.width == 0 {
            return;
        }
        while self.chunks.len() << CHUNK_BITS < rows {
            let chunk: Box<[T]> = vec![T::default(); CHUNK * self.stride].into();
            self.begins.push(address(&chunk[0]));
            self.chunks.push(chunk);
        }
    }

    /// How many rows there is room for.
    pub(super) const fn room(&self) -> usize {
        self.chunks.len() << CHUNK_BITS
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

    /// Some elements of a row: [`Self::row_mut`] for those who know where they are.
    #[inline(always)]
    pub(super) fn part_mut(&mut self, row: usize, from: usize, elements: usize) -> &mut [T] {
        debug_assert!(from + elements <= self.width, "they are within the row");
        let at = (row & (CHUNK - 1)) * self.stride + from;
        &mut self.chunks[row >> CHUNK_BITS][at..][..elements]
    }

    /// The element of a row, where there is one.
    #[inline(always)]
    pub(super) fn only(&self, row: usize) -> &T {
        debug_assert!(self.stride == 1, "rows are of one element");
        &self.chunks[row >> CHUNK_BITS][row & (CHUNK - 1)]
    }

    /// As [`Self::only`].
    #[inline(always)]
    pub(super) fn only_mut(&mut self, row: usize) -> &mut T {
        debug_assert!(self.stride == 1, "rows are of one element");
        &mut self.chunks[row >> CHUNK_BITS][row & (CHUNK - 1)]
    }

    /// The cache lines that elements of a row are in, to ask for them before they are needed: as many as these, of
    /// which none is empty. None where all rows are near anyway.
    pub(super) fn spans(&self, elements: &[Range<usize>]) -> Vec<Span> {
        if !self.is_far() {
            return Vec::new();
        }
        let in_line = (LINE / size_of::<T>()).max(1);
        // Rows begin where lines do, mostly, or lie within one.
        let span = |elements: &Range<usize>| {
            let (first, last) = (elements.start / in_line, (elements.end - 1) / in_line);
            Span { from: first * LINE, more: (last - first) * LINE }
        };
        elements.iter().map(span).collect()
    }

    /// Asks for the memory of some rows, of what will be touched in each. A hint: changes nothing.
    #[inline(always)]
    pub(super) fn ask(&self, span: Span, rows: impl Iterator<Item = usize>) {
        // How many lines it is, is a branch here and not for each of them.
        match span.more / LINE {
            0 => self.ask_lines(1, span, rows),
            1 => self.ask_lines(2, span, rows),
            2 => self.ask_lines(3, span, rows),
            more => self.ask_lines(more + 1, span, rows),
        }
    }

    /// As [`Self::ask`], for so many cache lines.
    #[inline(always)]
    fn ask_lines(&self, lines: usize, span: Span, rows: impl Iterator<Item = usize>) {
        for row in rows {
            let begin = self.begins[row >> CHUNK_BITS] + (row & (CHUNK - 1)) * self.stride * size_of::<T>();
            for line in 0..lines {
                prefetch_at(begin + span.from + line * LINE);
            }
        }
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
