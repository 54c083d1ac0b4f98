//! Columns of numbers in few bytes: blocks of a smallest value and the packed distances to it.
//!
//! Frame of reference with bit packing, as column stores have it (Zukowski et al., 2006): no dependency
//! between values, so a block decodes at about a nanosecond a value.

use std::hint::select_unpredictable;

use crate::binary::{Reader, Writer};
use crate::error::SnapshotError;

/// Values per block: small enough that one outlier widens few neighbours.
pub(super) const BLOCK: usize = 128;

/// Writes `values`; their number is not written.
pub(super) fn write(out: &mut Writer, values: &[i64]) {
    for block in values.chunks(BLOCK) {
        let (min, max) = ends(block);
        let width = 64 - max.wrapping_sub(min).cast_unsigned().leading_zeros();
        out.i64(min);
        out.u8(u8::try_from(width).expect("at most 64"));
        match width {
            0 => {}
            1..=8 => pack::<8>(out, block, min, width),
            9..=16 => pack::<4>(out, block, min, width),
            17..=32 => pack::<2>(out, block, min, width),
            _ => pack::<1>(out, block, min, width),
        }
    }
}

/// The smallest and the largest of some values.
fn ends(values: &[i64]) -> (i64, i64) {
    // Of four at a time, since each waits for the one before it.
    const TOGETHER: usize = 4;
    let (mut min, mut max) = ([i64::MAX; TOGETHER], [i64::MIN; TOGETHER]);
    let (together, rest) = values.as_chunks::<TOGETHER>();
    for values in together {
        for (lane, &value) in values.iter().enumerate() {
            (min[lane], max[lane]) = (min[lane].min(value), max[lane].max(value));
        }
    }
    let all = |ends: [i64; TOGETHER], best: fn(i64, i64) -> i64| {
        ends.into_iter().chain(rest.iter().copied()).reduce(best)
    };
    (all(min, i64::min).expect("there are some"), all(max, i64::max).expect("there are some"))
}

/// Packs values, `TOGETHER` at a time: that many fit a word.
fn pack<const TOGETHER: usize>(out: &mut Writer, block: &[i64], min: i64, width: u32) {
    let mut words = [0; BLOCK + 1];
    let (mut at, mut word, mut used) = (0, 0_u64, 0_u32);
    // Without a branch on where words end, which few could guess.
    let mut put = |bits: u64, width: u32| {
        word |= bits << used;
        words[at] = word;
        // What does not fit, if the word is full: two shifts, since one by 64 is none.
        let more = bits >> 1 >> (63 - used);
        used += width;
        let full = used >= 64;
        word = select_unpredictable(full, more, word);
        at += usize::from(full);
        used %= 64;
    };
    let distance = |value: &i64| value.wrapping_sub(min).cast_unsigned();
    let (together, rest) = block.as_chunks::<TOGETHER>();
    for values in together {
        let bits = (0..).step_by(width as usize).zip(values).map(|(shift, value)| distance(value) << shift);
        put(bits.fold(0, |all, bits| all | bits), width * TOGETHER as u32);
    }
    rest.iter().for_each(|value| put(distance(value), width));
    words[at] = word;
    words[..at + usize::from(used > 0)].iter().for_each(|&word| out.u64(word));
}

/// Appends `count` values to `out`: to the end of those that were written, or of a block.
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
