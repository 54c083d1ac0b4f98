//! A growing array that never moves what it holds: growth costs one chunk, however large it is.

/// Elements per chunk, as a power of two.
const CHUNK_BITS: usize = 12;
const CHUNK: usize = 1 << CHUNK_BITS;

/// Rows of a fixed width, addressed by number, in chunks that are allocated once.
///
/// A `Vec` of two million rows would stall its owner for tens of milliseconds each time it doubles.
#[derive(Debug)]
pub(super) struct Chunked<T> {
    width: usize,
    chunks: Vec<Box<[T]>>,
}

impl<T: Default> Chunked<T> {
    /// No rows yet, each of `width` elements.
    pub(super) const fn new(width: usize) -> Self {
        Self { width, chunks: Vec::new() }
    }

    /// Makes sure that rows below `rows` exist; new ones hold default values.
    pub(super) fn grow(&mut self, rows: usize) {
        if self.width == 0 {
            return;
        }
        while self.chunks.len() << CHUNK_BITS < rows {
            self.chunks.push((0..CHUNK * self.width).map(|_| T::default()).collect());
        }
    }

    #[inline]
    pub(super) fn row(&self, row: usize) -> &[T] {
        let at = (row & (CHUNK - 1)) * self.width;
        &self.chunks[row >> CHUNK_BITS][at..at + self.width]
    }

    #[inline]
    pub(super) fn row_mut(&mut self, row: usize) -> &mut [T] {
        let at = (row & (CHUNK - 1)) * self.width;
        &mut self.chunks[row >> CHUNK_BITS][at..at + self.width]
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * self.width * size_of::<T>()
    }
}
