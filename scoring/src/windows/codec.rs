//! Columns of numbers in few bytes: blocks of a smallest value and the distances to it, in as many bytes as the largest
//! needs.
//!
//! Frame of reference, as column stores have it (Zukowski et al., 2006): no dependency between values. In whole bytes
//! and not in bits, which would be a seventh less for nearly twice the time.

use crate::binary::{Reader, Writer};
use crate::error::SnapshotError;

/// Values per block: small enough that one outlier widens few neighbours.
pub(super) const BLOCK: usize = 128;

/// Room for the distances of a block, and for what is written or read beyond the last.
const ROOM: usize = BLOCK * WORD + WORD;
const WORD: usize = size_of::<u64>();

/// Calls a function that is made for each number of bytes, from 1 to 8.
macro_rules! by_width {
    ($width:expr, $function:ident($($argument:expr),*)) => {
        match $width {
            1 => $function::<1>($($argument),*),
            2 => $function::<2>($($argument),*),
            3 => $function::<3>($($argument),*),
            4 => $function::<4>($($argument),*),
            5 => $function::<5>($($argument),*),
            6 => $function::<6>($($argument),*),
            7 => $function::<7>($($argument),*),
            _ => $function::<8>($($argument),*),
        }
    };
}

/// Writes `values`; their number is not written.
pub(super) fn write(out: &mut Writer, values: &[i64]) {
    let mut room = [0; ROOM];
    for block in values.chunks(BLOCK) {
        let (min, max) = ends(block);
        let bits = 64 - max.wrapping_sub(min).cast_unsigned().leading_zeros();
        let width = bits.div_ceil(8) as u8;
        out.i64(min);
        out.u8(width);
        if width > 0 {
            out.raw(by_width!(width, pack(block, min, &mut room)));
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

/// Puts the distances of values to the smallest side by side.
fn pack<'a, const WIDTH: usize>(block: &[i64], min: i64, room: &'a mut [u8; ROOM]) -> &'a [u8] {
    for (at, value) in block.iter().enumerate() {
        // The next begins where this one's zeroes do.
        let distance = value.wrapping_sub(min).to_le_bytes();
        room[at * WIDTH..][..WORD].copy_from_slice(&distance);
    }
    &room[..block.len() * WIDTH]
}

/// Appends `count` values to `out`: to the end of those that were written, or of a block.
pub(super) fn read(input: &mut Reader<'_>, count: usize, out: &mut Vec<i64>) -> Result<(), SnapshotError> {
    let mut left = count;
    let mut room = [0; ROOM];
    while left > 0 {
        let in_block = left.min(BLOCK);
        left -= in_block;
        let min = input.i64()?;
        match usize::from(input.u8()?) {
            0 => out.resize(out.len() + in_block, min),
            width @ 1..=WORD => {
                let packed = input.take(in_block * width)?;
                room[..packed.len()].copy_from_slice(packed);
                by_width!(width, unpack(&room, in_block, min, out));
            }
            _ => return Err(SnapshotError::Damaged("a packed column is wider than its values")),
        }
    }
    Ok(())
}

/// Appends the values of which the distances to the smallest are side by side.
fn unpack<const WIDTH: usize>(room: &[u8; ROOM], values: usize, min: i64, out: &mut Vec<i64>) {
    let mask = u64::MAX >> (8 * (WORD - WIDTH));
    out.extend((0..values.min(BLOCK)).map(|at| {
        let word = room[at * WIDTH..].first_chunk().expect("there is room behind");
        min.wrapping_add((u64::from_le_bytes(*word) & mask).cast_signed())
    }));
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
