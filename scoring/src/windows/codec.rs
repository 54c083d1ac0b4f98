//! Columns of numbers in few bytes: blocks of a smallest value and the packed distances to it.
//!
//! Frame of reference with bit packing, as column stores have it (Zukowski et al., 2006): no dependency
//! between values, so a block decodes at about a nanosecond a value.

use crate::binary::{Reader, Writer};
use crate::error::SnapshotError;

/// Values per block: small enough that one outlier widens few neighbours.
const BLOCK: usize = 128;

/// Writes `values`; their number is not written.
pub(super) fn write(out: &mut Writer, values: &[i64]) {
    for block in values.chunks(BLOCK) {
        let min = block.iter().copied().min().unwrap_or(0);
        let max = block.iter().copied().max().unwrap_or(0);
        let width = 64 - max.wrapping_sub(min).cast_unsigned().leading_zeros();
        out.i64(min);
        out.u8(u8::try_from(width).expect("at most 64"));
        pack(out, block, min, width);
    }
}

fn pack(out: &mut Writer, block: &[i64], min: i64, width: u32) {
    let (mut word, mut used) = (0_u64, 0_u32);
    for value in block {
        let distance = value.wrapping_sub(min).cast_unsigned();
        word |= distance.checked_shl(used).unwrap_or(0);
        used += width;
        if used >= 64 {
            out.u64(word);
            used -= 64;
            // What did not fit: nothing when the value ended with the word.
            word = if used == 0 { 0 } else { distance >> (width - used) };
        }
    }
    if used > 0 {
        out.u64(word);
    }
}

/// Reads `count` values.
pub(super) fn read(
    input: &mut Reader<'_>,
    count: usize,
    mut put: impl FnMut(i64),
) -> Result<(), SnapshotError> {
    let mut left = count;
    while left > 0 {
        let in_block = left.min(BLOCK);
        let min = input.i64()?;
        let width = u32::from(input.u8()?);
        if width > 64 {
            return Err(SnapshotError::Damaged("a packed column is wider than its values"));
        }
        let words = (in_block * width as usize).div_ceil(64);
        let bytes = input.take(words * 8)?;
        let word = |i: usize| {
            bytes.get(i * 8..i * 8 + 8).map_or(0, |b| u64::from_le_bytes(b.try_into().expect("eight bytes")))
        };
        let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
        let mut bit = 0;
        for _ in 0..in_block {
            let (at, shift) = (bit / 64, bit % 64);
            let mut distance = word(at) >> shift;
            if shift + width as usize > 64 {
                distance |= word(at + 1) << (64 - shift);
            }
            put(min.wrapping_add((distance & mask).cast_signed()));
            bit += width as usize;
        }
        left -= in_block;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(
            list in prop_oneof![
                prop::collection::vec(any::<i64>(), 0..300),
                prop::collection::vec(-5..1_000_i64, 0..300),
                prop::collection::vec(Just(7_i64), 0..300),
                prop::collection::vec(prop::sample::select(vec![i64::MIN, i64::MAX, 0]), 0..300),
            ]
        ) {
            let mut out = Writer::default();
            write(&mut out, &list);
            let bytes = out.finish();
            let mut input = Reader::new(&bytes).unwrap();
            let mut found = Vec::new();
            read(&mut input, list.len(), |v| found.push(v)).unwrap();
            input.finish().unwrap();
            prop_assert_eq!(found, list);
        }
    }
}
