//! What a window keeps of the events in its frame: words per key, and side tables for what does not
//! fit in words.
//!
//! Each kind says what an event does when it enters and when it leaves, and what is read. One loop
//! drives them all, over a whole batch of rows at a time and one accumulator at a time: no dispatch per
//! event, and for counts and sums no branch either, so that the processor is ahead with the rows of the
//! next events while it waits for those of this one.

use super::drive::{Course, Step};
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
pub(super) fn key(column: i64) -> u32 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // numbers are 32 bits wide
    {
        column as u32
    }
}

/// One kind of accumulator. `words` are its own of one key, zeroes for a key without events.
pub(super) trait Accumulate {
    /// Words per key.
    const WORDS: usize;
    /// Words that [`Self::read`] writes.
    const READ: usize;
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
    /// Asks for what the events of steps to come will touch, so that it is near when they do. A hint: changes
    /// nothing.
    #[inline(always)]
    fn approach(&self, _course: &Course<'_>, _to_come: &[Step]) {}
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

/// The sum of integers: `[n, low, high]`.
#[derive(Debug, Default)]
pub(super) struct IntSum;

/// An integer times 1, -1 or 0, without a multiplication.
#[inline(always)]
pub(super) fn times(value: i64, sign: i64) -> i128 {
    let counts = (sign & 1).wrapping_neg();
    let negative = sign >> 63;
    // The widest integer has no negative of its own width: the 1 is added in the sum's.
    i128::from((value & counts) ^ negative) - i128::from(negative)
}

/// A sum and an amount more, in two words.
#[inline(always)]
pub(super) fn plus(sum: i128, amount: i128) -> (u64, u64) {
    let sum = sum.wrapping_add(amount);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the two halves
    {
        (sum as u64, (sum >> 64) as u64)
    }
}

/// The sum in two words.
#[inline(always)]
pub(super) fn int_sum(words: &[u64]) -> i128 {
    (i128::from(words[1].cast_signed()) << 64) | i128::from(words[0])
}

impl Accumulate for IntSum {
    const WORDS: usize = 3;
    const READ: usize = 3;

    #[inline(always)]
    fn apply(&mut self, words: &mut [u64], sign: i64, item: Item) {
        words[0] = words[0].wrapping_add_signed(sign);
        (words[1], words[2]) = plus(int_sum(&words[1..3]), times(item.value, sign));
    }
}

/// The sum of integers and of their squares: `[n, sum (2), squares (4)]`.
#[derive(Debug, Default)]
pub(super) struct IntSquares;

impl Accumulate for IntSquares {
    const WORDS: usize = 7;
    const READ: usize = 7;

    #[inline(always)]
    fn apply(&mut self, words: &mut [u64], sign: i64, item: Item) {
        IntSum.apply(words, sign, item);
        wide::add(&mut words[3..7], wide::signed(wide::square_of_int(item.value), sign));
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

/// The last two rows, as a [`Ring`] of two reads them: most of what is asked for is the one before.
#[derive(Debug, Default)]
pub(super) struct LastTwo;

impl Accumulate for LastTwo {
    const WORDS: usize = ring_words(2);
    const READ: usize = ring_words(2);

    #[inline(always)]
    fn enter(&mut self, words: &mut [u64], item: Item) {
        words[0] = 2.min(words[0] + 1);
        words[1] = (words[1] << 1 | u64::from(item.valid)) & 0b11;
        (words[2], words[3]) = (item.value.cast_unsigned(), words[2]);
    }

    fn leave(&mut self, _: &mut [u64], _: Item) {
        unreachable!("nothing leaves a frame without a beginning")
    }
}

/// What is kept of all events of a key: nothing leaves.
pub(super) trait History {
    /// Words that [`Self::show`] writes, of an accumulator with `words` words a key.
    fn words_shown(&self, words: usize) -> usize;
    fn add(&mut self, words: &mut [u64], item: Item);
    /// Writes all words of `out`.
    fn show(&self, words: &[u64], out: &mut [u64]);
}

impl<A: Accumulate> History for A {
    fn words_shown(&self, _: usize) -> usize {
        A::READ
    }

    #[inline(always)]
    fn add(&mut self, words: &mut [u64], item: Item) {
        self.enter(words, item);
    }

    #[inline(always)]
    fn show(&self, words: &[u64], out: &mut [u64]) {
        self.read(words, out);
    }
}

impl History for Ring {
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
    fn show(&self, words: &[u64], out: &mut [u64]) {
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
