//! Columns of numbers in few bytes: blocks of a smallest value and the packed distances to it.
//!
//! Frame of reference with bit packing, as column stores have it (Zukowski et al., 2006): no dependency
//! between values, so a block decodes at about a nanosecond a value.

use std::hint::select_unpredictable;

use crate::binary::{Reader, Writer};
use crate::error::SnapshotError;

/// Values per block: small enough that one outlier widens few neighbours.
const BLOCK: usize = 128;

/// Writes `values`; their number is not written.
pub(super) fn write(out: &mut Writer, values: &[i64]) {
    for block in values.chunks(BLOCK) {
        let (min, max) = block.iter().fold((i64::MAX, i64::MIN), |(min, max), &v| (min.min(v), max.max(v)));
        let width = 64 - max.wrapping_sub(min).cast_unsigned().leading_zeros();
        out.i64(min);
        out.u8(u8::try_from(width).expect("at most 64"));
        if width > 0 {
            pack(out, block, min, width);
        }
    }
}

fn pack(out: &mut Writer, block: &[i64], min: i64, width: u32) {
    let mut words = [0; BLOCK + 1];
    let (mut at, mut word, mut used) = (0, 0_u64, 0_u32);
    // Without a branch on where words end, which few could guess.
    for value in block {
        let distance = value.wrapping_sub(min).cast_unsigned();
        word |= distance << used;
        words[at] = word;
        // What does not fit, if the word is full: two shifts, since one by 64 is none.
        let more = distance >> 1 >> (63 - used);
        used += width;
        let full = used >= 64;
        word = select_unpredictable(full, more, word);
        at += usize::from(full);
        used %= 64;
    }
    if used > 0 {
        words[at] = word;
        at += 1;
    }
    words[..at].iter().for_each(|&word| out.u64(word));
}

/// Appends `count` values to `out`.
pub(super) fn read(input: &mut Reader<'_>, count: usize, out: &mut Vec<i64>) -> Result<(), SnapshotError> {
    let mut left = count;
    // Of a block, with room for what is read beyond its last value.
    let mut bytes = [0; BLOCK * 8 + 16];
    while left > 0 {
        let in_block = left.min(BLOCK);
        let min = input.i64()?;
        let width = u32::from(input.u8()?);
        if width > 64 {
            return Err(SnapshotError::Damaged("a packed column is wider than its values"));
        }
        left -= in_block;
        let width = width as usize;
        if width == 0 {
            out.resize(out.len() + in_block, min);
            continue;
        }
        let packed = input.take((in_block * width).div_ceil(64) * 8)?;
        bytes[..packed.len()].copy_from_slice(packed);
        let mask = u64::MAX >> (64 - width);
        out.extend((0..in_block).map(|i| {
            let (at, shift) = (i * width / 8 % (BLOCK * 8), i * width % 8);
            // A value and the bits before it in its first byte are at most 71: nine bytes.
            let around = u128::from_le_bytes(*bytes[at..].first_chunk().expect("there is room behind"));
            #[allow(clippy::cast_possible_truncation)] // the lower half
            let distance = (around >> shift) as u64 & mask;
            min.wrapping_add(distance.cast_signed())
        }));
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
            read(&mut input, list.len(), &mut found).unwrap();
            input.finish().unwrap();
            prop_assert_eq!(found, list);
        }
    }
}
