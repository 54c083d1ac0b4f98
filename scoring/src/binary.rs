//! The little-endian form of checkpoints: lengths first, no padding, an XXH3 checksum at the end.

use std::ops::Range;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::SnapshotError;

const CHECKSUM_BYTES: usize = 8;

/// Builds a checkpoint.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

macro_rules! list {
    ($write:ident, $read:ident, $type:ty) => {
        impl Writer {
            pub(crate) fn $write(&mut self, list: &[$type]) {
                self.u64(list.len() as u64);
                let from = self.0.len();
                self.0.resize(from + size_of_val(list), 0);
                // Becomes one copy on a little-endian machine.
                for (bytes, n) in self.0[from..].chunks_exact_mut(size_of::<$type>()).zip(list) {
                    bytes.copy_from_slice(&n.to_le_bytes());
                }
            }
        }

        impl Reader<'_> {
            pub(crate) fn $read(&mut self) -> Result<Vec<$type>, SnapshotError> {
                const SIZE: usize = size_of::<$type>();
                let length = self.length(SIZE)?;
                let bytes = self.take(length * SIZE)?;
                Ok(bytes
                    .chunks_exact(SIZE)
                    .map(|b| <$type>::from_le_bytes(b.try_into().expect("chunks are exact")))
                    .collect())
            }
        }
    };
}

list!(u64s, u64s, u64);

impl Writer {
    pub(crate) fn u8(&mut self, n: u8) {
        self.0.push(n);
    }

    /// The bytes so far, without a checksum.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// A number in as few bytes as it needs, seven bits in each (LEB128).
    pub(crate) fn varint(&mut self, mut n: u64) {
        while n > 0x7f {
            self.0.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        self.0.push(n as u8);
    }

    pub(crate) fn u16(&mut self, n: u16) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, n: u32) {
        self.0.extend_from_slice(&n.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, n: u64) {
        self.0.extend(n.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, n: i64) {
        self.0.extend(n.to_le_bytes());
    }

    /// Bytes without their number.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    /// What `write` writes, after its length, as [`Self::bytes`] has it. Returns where it is.
    pub(crate) fn sized(&mut self, write: impl FnOnce(&mut Self)) -> Range<usize> {
        self.u64(0);
        let from = self.0.len();
        write(self);
        let to = self.0.len();
        self.0[from - size_of::<u64>()..from].copy_from_slice(&((to - from) as u64).to_le_bytes());
        from..to
    }

    /// Forgets the bytes so far, and keeps their memory.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// As [`Self::finish`], and begins anew in the same memory.
    pub(crate) fn end(&mut self) -> Arc<[u8]> {
        self.checksum();
        let bytes = self.0.as_slice().into();
        self.clear();
        bytes
    }

    /// The bytes with their checksum, which is against accidents: it is computed on the hot path, and
    /// whoever can write a checkpoint can write any other.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.checksum();
        self.0
    }

    fn checksum(&mut self) {
        let checksum = xxh3_64(&self.0);
        self.0.extend(checksum.to_le_bytes());
    }
}

/// Takes a checkpoint apart. Never trusts a length it read.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    end: usize,
}

impl<'a> Reader<'a> {
    /// A reader of what [`Writer::finish`] returned.
    pub(crate) fn new(bytes: &'a [u8]) -> Result<Self, SnapshotError> {
        let (body, checksum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(SnapshotError::Damaged("it is cut short"))?;
        if xxh3_64(body).to_le_bytes() != *checksum {
            return Err(SnapshotError::Damaged("its checksum does not match"));
        }
        Ok(Self::part(body))
    }

    /// The next `n` bytes.
    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], SnapshotError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(SnapshotError::Damaged("it is cut short"))?;
        self.rest = rest;
        Ok(taken)
    }

    fn length(&mut self, element_bytes: usize) -> Result<usize, SnapshotError> {
        usize::try_from(self.u64()?)
            .ok()
            .filter(|n| n.checked_mul(element_bytes).is_some_and(|bytes| bytes <= self.rest.len()))
            .ok_or(SnapshotError::Damaged("a length does not fit"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, SnapshotError> {
        Ok(self.take(1)?[0])
    }

    /// A reader of bytes whose checksum has been checked.
    pub(crate) const fn part(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, end: bytes.len() }
    }

    /// Where the next byte is.
    pub(crate) const fn position(&self) -> usize {
        self.end - self.rest.len()
    }

    /// Where the last byte ends.
    pub(crate) const fn end(&self) -> usize {
        self.end
    }

    pub(crate) fn varint(&mut self) -> Result<u64, SnapshotError> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            n |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(n);
            }
        }
        Err(SnapshotError::Damaged("a number does not end"))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, SnapshotError> {
        Ok(u16::from_le_bytes(self.take(2)?.try_into().expect("two bytes were taken")))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, SnapshotError> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes were taken")))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, SnapshotError> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were taken")))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, SnapshotError> {
        Ok(self.u64()?.cast_signed())
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], SnapshotError> {
        let length = self.length(1)?;
        self.take(length)
    }

    /// Everything must have been read.
    pub(crate) fn finish(self) -> Result<(), SnapshotError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(SnapshotError::Damaged("it is longer than its content"))
        }
    }
}
