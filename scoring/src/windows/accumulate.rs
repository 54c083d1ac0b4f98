//! What a window keeps of the events in its frame: words per key, and side tables for what does not
//! fit in words.
//!
//! Each kind says what an event does when it enters and when it leaves, and what is read. One loop
//! drives them all, over a whole batch of rows at a time and one accumulator at a time: no dispatch per
//! event, and for counts and sums no branch either, so that the processor is ahead with the rows of the
//! next events while it waits for those of this one.

use super::drive::Course;
use super::runs::{Order, Run};
use super::wide;

/// One event as an accumulator sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Item {
    pub(super) seq: u64,
    pub(super) key: u32,
    /// The argument, or its number for a distinct count; anything where there is none.
    pub(super) value: i64,
    /// Whether the argument is not null, for those that keep nulls.
    pub(super) valid: bool,
}

/// A key's number, from a column of the reservoir.
#[inline]
pub(super) const fn key(column: i64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers are 32 bits wide
    {
        column as u32
    }
}

/// One kind of accumulator. `words` are its own of one key: zeroes before its first event, and what it left of them after
/// the last has left.
pub(super) trait Accumulate {
    /// Words per key.
    const WORDS: usize;
    /// Words that [`Self::read`] writes.
    const READ: usize;
    /// How many of its first words most events touch as they leave.
    const LEFT: usize = Self::WORDS;
    /// Takes an event in. An implementation has this and [`Self::leave`], or else [`Self::apply`].
    #[inline(always)]
    fn enter(&mut self, words: &mut [u64], item: Item) {
        self.apply(words, 1, item);
    }
    /// Takes the oldest event out.
    #[inline(always)]
    fn leave(&mut self, words: &mut [u64], item: Item) {
        self.apply(words, -1, item);
    }
    /// Lets an event enter (`sign` 1), leave (-1) or pass by (0).
    #[inline(always)]
    fn apply(&mut self, words: &mut [u64], sign: i64, item: Item) {
        match sign {
            1 => self.enter(words, item),
            -1 => self.leave(words, item),
            _ => {}
        }
    }
    /// Asks for what events to come will touch, so that it is near when they do. A hint: changes
    /// nothing.
    #[inline(always)]
    fn approach(&self, _course: &Course<'_>, _order: &Order, _to_come: &[Run]) {}
    /// Takes the event of a row into a key's whole history, if it counts, and writes [`Self::READ`] words.
    #[inline(always)]
    fn live(&mut self, words: &mut [u64], item: Option<Item>, out: &mut [u64]) {
        if let Some(item) = item {
            self.enter(words, item);
        }
        self.read(words, out);
    }
    /// Writes [`Self::READ`] words.
    #[inline(always)]
    fn read(&self, words: &[u64], out: &mut [u64]) {
        out.copy_from_slice(&words[..Self::READ]);
    }
}

/// How many: `[n]`.
#[derive(Debug, Default)]
pub(super) struct Count;

impl Accumulate for Count {
    const WORDS: usize = 1;
    const READ: usize = 1;

    #[inline(always)]
    fn apply(&mut self, words: &mut [u64], sign: i64, _: Item) {
        words[0] = words[0].wrapping_add_signed(sign);
    }
}

/// The sum of integers in a frame: `[n | the upper 32 of its 96 bits << 32, the lower 64]`, read as `[n, low, high]`.
/// [`FRAME_EVENTS`] of any size fit.
#[derive(Debug, Default)]
pub(super) struct IntSum;

/// The most events in a frame.
pub(crate) const FRAME_EVENTS: u64 = u32::MAX as u64;

/// An integer times 1, -1 or 0, without a multiplication.
#[inline(always)]
pub(super) fn times(value: i64, sign: i64) -> i128 {
    let counts = (sign & 1).wrapping_neg();
    let negative = sign >> 63;
    // The widest integer has no negative of its own width: the 1 is added in the sum's.
    i128::from((value & counts) ^ negative) - i128::from(negative)
}

/// The sum in two words.
#[inline(always)]
pub(super) fn int_sum(words: &[u64]) -> i128 {
    (i128::from(words[1].cast_signed()) << 64) | i128::from(words[0])
}

impl IntSum {
    /// Adds an amount, no larger than an integer, that comes with an event that enters (`sign` 1), leaves (-1) or passes
    /// by (0), and returns what is read.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the two halves
    pub(super) fn add(words: &mut [u64], sign: i64, amount: i128) -> [u64; Self::READ] {
        let (low, carried) = words[1].overflowing_add(amount as u64);
        let more = ((amount >> 64) as u64).wrapping_add(u64::from(carried));
        words[0] = words[0].wrapping_add_signed(sign).wrapping_add(more << 32);
        words[1] = low;
        Self::unpacked(words)
    }

    #[inline(always)]
    const fn unpacked(words: &[u64]) -> [u64; Self::READ] {
        [words[0] & FRAME_EVENTS, words[1], (words[0].cast_signed() >> 32).cast_unsigned()]
    }
}

impl Accumulate for IntSum {
    const WORDS: usize = 2;
    const READ: usize = 3;

    #[inline(always)]
    fn apply(&mut self, words: &mut [u64], sign: i64, item: Item) {
        Self::add(words, sign, times(item.value, sign));
    }

    #[inline(always)]
    fn read(&self, words: &[u64], out: &mut [u64]) {
        out.copy_from_slice(&Self::unpacked(words));
    }
}

/// The sum of integers in a frame and of their squares: `[sum (2), squares (3)]`, read as `[n, sum (2), squares (4)]`.
#[derive(Debug, Default)]
pub(super) struct IntSquares;

impl Accumulate for IntSquares {
    const WORDS: usize = IntSum::WORDS + 3;
    const READ: usize = 7;

    #[inline(always)]
    fn apply(&mut self, words: &mut [u64], sign: i64, item: Item) {
        IntSum.apply(words, sign, item);
        wide::add(&mut words[IntSum::WORDS..], wide::signed(wide::square_of_int(item.value), sign));
    }

    #[inline(always)]
    fn read(&self, words: &[u64], out: &mut [u64]) {
        let (sum, squares) = words.split_at(IntSum::WORDS);
        let [n, low, high] = IntSum::unpacked(sum);
        out.copy_from_slice(&[n, low, high, squares[0], squares[1], squares[2], 0]);
    }
}

/// The sum of all integers, and of their squares when asked: `[n, sum (2), squares (4)]`.
#[derive(Debug, Default)]
pub(super) struct IntSumEver<const SQUARES: bool>;

impl<const SQUARES: bool> Accumulate for IntSumEver<SQUARES> {
    const WORDS: usize = if SQUARES { 7 } else { 3 };
    const READ: usize = Self::WORDS;

    fn enter(&mut self, words: &mut [u64], item: Item) {
        words[0] += 1;
        let sum = int_sum(&words[1..3]).wrapping_add(i128::from(item.value));
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the two halves
        {
            (words[1], words[2]) = (sum as u64, (sum >> 64) as u64);
        }
        if SQUARES {
            wide::add(&mut words[3..7], wide::square_of_int(item.value));
        }
    }

    fn leave(&mut self, _: &mut [u64], _: Item) {
        unreachable!("nothing leaves a frame without a beginning")
    }
}

/// The sum of floats, and of their squares when asked: `[n, sum (4), squares (4)]`.
#[derive(Debug, Default)]
pub(super) struct FloatSum<const SQUARES: bool>;

impl<const SQUARES: bool> Accumulate for FloatSum<SQUARES> {
    const WORDS: usize = if SQUARES { 9 } else { 5 };
    const READ: usize = Self::WORDS;

    fn apply(&mut self, words: &mut [u64], sign: i64, item: Item) {
        let value = super::values::ordered_to_float(item.value);
        words[0] = words[0].wrapping_add_signed(sign);
        wide::add(&mut words[1..5], wide::signed(wide::of_float(value), sign));
        if SQUARES {
            wide::add(&mut words[5..9], wide::signed(wide::square_of_float(value), sign));
        }
    }
}

/// The newest value: `[n, valid, value]`, read as `[valid, value]`.
#[derive(Debug, Default)]
pub(super) struct Last;

impl Accumulate for Last {
    const WORDS: usize = 3;
    const READ: usize = 2;

    fn enter(&mut self, words: &mut [u64], item: Item) {
        words[0] += 1;
        words[1] = u64::from(item.valid);
        words[2] = item.value.cast_unsigned();
    }

    fn leave(&mut self, words: &mut [u64], _: Item) {
        words[0] -= 1;
        if words[0] == 0 {
            words[1..].fill(0);
        }
    }

    fn read(&self, words: &[u64], out: &mut [u64]) {
        out.copy_from_slice(&words[1..]);
    }
}

/// The value before the newest: most of what is asked of a ring. `[valid, value]` of the newest row, which is the one
/// before as the next comes and reads it.
#[derive(Debug, Default)]
pub(super) struct Previous;

impl Accumulate for Previous {
    const WORDS: usize = 2;
    const READ: usize = 2;

    #[inline(always)]
    fn enter(&mut self, words: &mut [u64], item: Item) {
        words[0] = u64::from(item.valid);
        words[1] = item.value.cast_unsigned();
    }

    fn leave(&mut self, _: &mut [u64], _: Item) {
        unreachable!("nothing leaves a frame without a beginning")
    }

    #[inline(always)]
    fn live(&mut self, words: &mut [u64], item: Option<Item>, out: &mut [u64]) {
        self.read(words, out);
        if let Some(item) = item {
            self.enter(words, item);
        }
    }
}

/// The smallest or largest value ever: `[valid, value]`.
#[derive(Debug, Default)]
pub(super) struct ExtremeEver<const MIN: bool>;

impl<const MIN: bool> Accumulate for ExtremeEver<MIN> {
    const WORDS: usize = 2;
    const READ: usize = 2;

    fn enter(&mut self, words: &mut [u64], item: Item) {
        let better =
            if MIN { item.value < words[1].cast_signed() } else { item.value > words[1].cast_signed() };
        if words[0] == 0 || better {
            words[0] = 1;
            words[1] = item.value.cast_unsigned();
        }
    }

    fn leave(&mut self, _: &mut [u64], _: Item) {
        unreachable!("nothing leaves a frame without a beginning")
    }
}

/// The first value ever: `[n, valid, value]`, read as `[valid, value]`.
#[derive(Debug, Default)]
pub(super) struct FirstEver;

impl Accumulate for FirstEver {
    const WORDS: usize = 3;
    const READ: usize = 2;

    fn enter(&mut self, words: &mut [u64], item: Item) {
        if words[0] == 0 {
            words[1] = u64::from(item.valid);
            words[2] = item.value.cast_unsigned();
        }
        words[0] += 1;
    }

    fn leave(&mut self, _: &mut [u64], _: Item) {
        unreachable!("nothing leaves a frame without a beginning")
    }

    fn read(&self, words: &[u64], out: &mut [u64]) {
        out.copy_from_slice(&words[1..]);
    }
}

/// The most rows a `ROWS` frame or a `lag` may reach back.
pub(crate) const MAX_RING_ROWS: usize = 64;

/// The last rows: `[rows held | place of the next << 32, valid bits, values…]`. Read newest first as
/// `[rows, valid bits, values…]`, the first bit and value being the newest row's.
#[derive(Debug, Default)]
pub(super) struct Ring;

/// Words per key of a ring of `rows` rows.
pub(super) const fn ring_words(rows: usize) -> usize {
    2 + rows
}

/// What is kept of all events of a key: nothing leaves.
pub(super) trait History {
    /// Words per key: `words`, for those that cannot tell by themselves.
    fn words(&self, words: usize) -> usize;
    /// Words that [`Self::live`] writes, of an accumulator with `words` words a key.
    fn words_shown(&self, words: usize) -> usize;
    fn add(&mut self, words: &mut [u64], item: Item);
    /// Takes the event of a row in, if it counts, and writes all words of `out`.
    fn live(&mut self, words: &mut [u64], item: Option<Item>, out: &mut [u64]);
}

impl<A: Accumulate> History for A {
    #[inline(always)]
    fn words(&self, _: usize) -> usize {
        A::WORDS
    }

    #[inline(always)]
    fn words_shown(&self, _: usize) -> usize {
        A::READ
    }

    #[inline(always)]
    fn add(&mut self, words: &mut [u64], item: Item) {
        self.enter(words, item);
    }

    #[inline(always)]
    fn live(&mut self, words: &mut [u64], item: Option<Item>, out: &mut [u64]) {
        Accumulate::live(self, words, item, out);
    }
}

impl History for Ring {
    fn words(&self, words: usize) -> usize {
        words
    }

    fn words_shown(&self, words: usize) -> usize {
        words
    }

    #[inline(always)]
    fn add(&mut self, words: &mut [u64], item: Item) {
        let rows = words.len() as u64 - 2;
        let (held, next) = (words[0] & u64::from(u32::MAX), words[0] >> 32);
        let after = if next + 1 == rows { 0 } else { next + 1 };
        words[0] = rows.min(held + 1) | after << 32;
        words[1] = words[1] & !(1 << next) | u64::from(item.valid) << next;
        words[2 + usize::try_from(next).expect("a ring is short")] = item.value.cast_unsigned();
    }

    #[inline(always)]
    fn live(&mut self, words: &mut [u64], item: Option<Item>, out: &mut [u64]) {
        if let Some(item) = item {
            self.add(words, item);
        }
        let (valid, values) = (words[1], &words[2..]);
        let mut valid_out = 0;
        let mut slot = usize::try_from(words[0] >> 32).expect("a ring is short");
        // Places that hold no row yet are zeroes.
        for (back, out) in out[2..].iter_mut().enumerate() {
            slot = slot.checked_sub(1).unwrap_or(values.len() - 1);
            valid_out |= (valid >> slot & 1) << back;
            *out = values[slot];
        }
        (out[0], out[1]) = (words[0] & u64::from(u32::MAX), valid_out);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn sums_in_a_frame_are_those_of_wider_numbers(
            steps in prop::collection::vec(
                (prop_oneof![any::<i64>(), -3..4_i64, Just(i64::MIN), Just(i64::MAX)], -1..2_i64),
                0..200,
            ),
        ) {
            let mut frame = std::collections::VecDeque::new();
            let (mut sum, mut squares) = ([0; IntSum::WORDS], [0; IntSquares::WORDS]);
            for (value, sign) in steps {
                let value = match sign {
                    -1 => frame.pop_front(),
                    1 => {
                        frame.push_back(value);
                        Some(value)
                    }
                    _ => Some(value),
                };
                let Some(value) = value else { continue };
                let item = Item { seq: 0, key: 0, value, valid: true };
                IntSum.apply(&mut sum, sign, item);
                IntSquares.apply(&mut squares, sign, item);
                let mut expected = [0; IntSquares::READ];
                for &value in &frame {
                    IntSumEver::<true>.enter(&mut expected, Item { value, ..item });
                }
                let (mut of_sum, mut of_squares) = ([0; IntSum::READ], [0; IntSquares::READ]);
                IntSum.read(&sum, &mut of_sum);
                IntSquares.read(&squares, &mut of_squares);
                prop_assert_eq!(&of_sum, &expected[..3]);
                prop_assert_eq!(of_squares, expected);
                prop_assert_eq!(expected[0], frame.len() as u64);
                let total: i128 = frame.iter().copied().map(i128::from).sum();
                prop_assert_eq!(int_sum(&expected[1..3]), total);
            }
        }
    }

    #[test]
    fn as_many_as_fit_a_frame_fit_a_sum() {
        for value in [i64::MIN, i64::MAX] {
            // All but one of them, of this value.
            let others = FRAME_EVENTS - 1;
            let total = i128::from(others) * i128::from(value);
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the parts
            let mut words = [others | ((total >> 64) as u64) << 32, total as u64];
            IntSum.apply(&mut words, 1, Item { seq: 0, key: 0, value, valid: true });
            let mut read = [0; IntSum::READ];
            IntSum.read(&words, &mut read);
            assert_eq!((read[0], int_sum(&read[1..])), (FRAME_EVENTS, total + i128::from(value)));
        }
    }
}
