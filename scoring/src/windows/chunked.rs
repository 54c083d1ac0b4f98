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

/// Rows to look at ahead at a time: about as many as a processor can wait for.
pub(super) const APPROACH: usize = 32;
/// What fits the processor's nearer caches, with much beside it.
const NEAR_BYTES: usize = 1 << 20;

/// Something of which a part can be read.
pub(super) trait Touch {
    /// Some part of it.
    fn touch(&self) -> u64;
}

impl Touch for u64 {
    #[inline(always)]
    fn touch(&self) -> u64 {
        *self
    }
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

    /// Looks at an element of each of some rows to come, so that they are near when they are needed: the
    /// processor waits for all of them together. A hint: where the rows are near anyway, it does nothing.
    #[inline(always)]
    pub(super) fn approach(&self, element: usize, rows: impl Iterator<Item = usize>)
    where
        T: Touch,
    {
        if self.bytes() > NEAR_BYTES {
            let seen = rows.fold(0, |seen: u64, row| seen.wrapping_add(self.row(row)[element].touch()));
            std::hint::black_box(seen);
        }
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        self.chunks.len() * CHUNK * self.width * size_of::<T>()
    }
}
