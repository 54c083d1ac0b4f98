//! Lines of values, each with the newest event that has it.
//!
//! A key has one, or more where its values are more. A value's hash says which of its key's lines it belongs in: mostly
//! all that is known of it is in that one cache line.
//! Where no place is left there, it is in the next line that has one, and each line on the way says until when one has
//! to look further. No value is taken out when its event is not needed any more: another takes its place.

use std::collections::BTreeMap;
use std::hint::{black_box, select_unpredictable};
use std::ops::Range;

use super::accumulate::key;
use super::chunked::Chunked;
use crate::prefetch::prefetch;

/// Values in a line.
const PLACES: usize = 7;
const ALL_PLACES: u32 = (1 << PLACES) - 1;
/// Values in the only line of a key when they are laid out, at the most.
const ALONE: usize = 5;
/// Values in each of several lines then.
const LAID_OUT: usize = 2;
/// With more than so many in each of several lines, there should be more.
const MANY: usize = 3;
/// With no more than so many in a line, there should be fewer.
const FEW: usize = 1;
/// Lines of a key at the most: nobody waits for long while they are laid out, or looked through.
const MOST: usize = 64;
/// Bits that say how many they are.
const COUNT_BITS: u32 = 16;
/// How many of them are looked at to tell whether it is worth while to count what is in all of them.
const LOOKED_AT: usize = 4;
/// The longest distance from the base of a key that a word has room for.
pub(super) const REACH: u64 = u32::MAX as u64;

/// A value and one more than the newest event with it.
pub(super) type Held = (u32, u64);

/// The lines of all keys that have some.
#[derive(Debug)]
pub(super) struct Lines {
    lines: Chunked<Line>,
    /// Lines that are somebody's, or were.
    used: usize,
    /// Those that are nobody's any more: the first of each stretch, by how many lines it is.
    vacant: BTreeMap<usize, Vec<usize>>,
}

/// Which lines are those of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stretch {
    first: usize,
    count: usize,
}

impl Stretch {
    /// From a word.
    #[inline(always)]
    #[allow(clippy::cast_possible_truncation)] // as it was made
    pub(super) const fn of(word: u64) -> Self {
        Self { first: (word >> COUNT_BITS) as usize, count: (word & ((1 << COUNT_BITS) - 1)) as usize }
    }

    /// As a word, which is not 0.
    pub(super) const fn word(self) -> u64 {
        (self.first as u64) << COUNT_BITS | self.count as u64
    }

    /// The line that a value belongs in.
    #[inline(always)]
    const fn home(self, value: u32) -> usize {
        // Fibonacci hashing (Knuth, The Art of Computer Programming, vol. 3, 6.4): values are numbers as they come.
        let spread = value.wrapping_mul(0x9e37_79b9) as u64;
        self.first + ((spread * self.count as u64) >> u32::BITS) as usize
    }

    /// How many they are.
    #[cfg(test)]
    pub(super) const fn count(self) -> usize {
        self.count
    }

    const fn all(self) -> Range<usize> {
        self.first..self.first + self.count
    }

    /// The lines in which a value may be, the likely ones first.
    fn way(self, value: u32) -> impl Iterator<Item = usize> + Clone {
        let Range { start, end } = self.all();
        (self.home(value)..end).chain(start..self.home(value))
    }
}

/// Some values of a key, each with one more than the newest event with it, as a distance from the base; 0 for no value.
/// Side by side, so that all are compared at once.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(64))] // one cache line each
struct Line {
    /// The last has none.
    values: [u32; PLACES + 1],
    /// The last is of the newest event with a value that would be here if there were place.
    afters: [u32; PLACES + 1],
}

pub(super) const LINE_BYTES: usize = size_of::<Line>();

/// What one has to know to read the lines of a key: the event that distances are counted from, and that no event before
/// `oldest` is needed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Since {
    pub(super) base: u64,
    pub(super) oldest: u64,
}

impl Since {
    /// Distances above this one are of events that are needed.
    #[inline(always)]
    fn gone(self) -> u32 {
        distance(self.oldest.saturating_sub(self.base).min(REACH))
    }

    /// The distance of an event within reach.
    #[inline(always)]
    fn to(self, after: u64) -> u32 {
        distance(after - self.base)
    }

    /// One more than the event at a distance.
    #[inline(always)]
    fn at(self, distance: u32) -> u64 {
        self.base + u64::from(distance)
    }
}

/// A distance from a base: 32 bits, as [`REACH`] says.
#[inline(always)]
const fn distance(events: u64) -> u32 {
    key(events.cast_signed())
}

impl Line {
    /// The values that are needed.
    fn held(&self, since: Since) -> impl Iterator<Item = Held> {
        let gone = since.gone();
        let all = self.values.iter().zip(&self.afters).take(PLACES);
        all.filter(move |&(_, &after)| after > gone).map(move |(&value, &after)| (value, since.at(after)))
    }

    /// Whether a value that belongs here may be further on.
    #[inline(always)]
    fn is_passed(&self, since: Since) -> bool {
        self.afters[PLACES] > since.gone()
    }

    /// Says that a value that belongs here is further on, until the event before `after` is not needed.
    fn pass(&mut self, since: Since, after: u64) {
        self.afters[PLACES] = self.afters[PLACES].max(since.to(after));
    }

    /// Puts a value where no other is needed. Returns whether there was such a place.
    fn put(&mut self, since: Since, (value, after): Held) -> bool {
        let gone = since.gone();
        let free = self.afters[..PLACES].iter().position(|&after| after <= gone);
        free.map(|free| (self.values[free], self.afters[free]) = (value, since.to(after))).is_some()
    }

    /// The places of a value and of all that are needed, as bits.
    #[inline(always)]
    fn seek(&self, since: Since, value: u32) -> (u32, u32) {
        // The last is no place.
        const BITS: [u32; PLACES + 1] = [1, 2, 4, 8, 16, 32, 64, 0];
        let gone = since.gone();
        // In a form that compilers make one comparison of, and one more for each of two halves.
        let of_place: [u32; PLACES + 1] = std::array::from_fn(|at| {
            let live = if self.afters[at] > gone { u32::MAX } else { 0 };
            let found = if self.values[at] == value { BITS[at] } else { 0 };
            live & (found | BITS[at] << PLACES)
        });
        let halves: [u32; 4] = std::array::from_fn(|at| of_place[at] | of_place[at + 4]);
        let all = (halves[0] | halves[2]) | (halves[1] | halves[3]);
        (all & ALL_PLACES, all >> PLACES)
    }

    /// Makes the event before `after` the newest with a value, and returns one more than the newest before it, or 0.
    /// `None` where no place is left for one that is not there, or where that may be elsewhere.
    #[inline(always)]
    fn enter(&mut self, since: Since, (value, after): Held) -> Option<u64> {
        let (found, live) = self.seek(since, value);
        let (is_found, free) = (found > 0, !live & ALL_PLACES);
        // The box keeps the compiler from making several branches of it, which nobody could guess.
        if black_box(is_found | ((free > 0) & !self.is_passed(since))) {
            let at = select_unpredictable(is_found, found, free).trailing_zeros() as usize % (PLACES + 1);
            let before = select_unpredictable(is_found, since.at(self.afters[at]), 0);
            (self.values[at], self.afters[at]) = (value, since.to(after));
            return Some(before);
        }
        None
    }
}

impl Lines {
    pub(super) const fn new() -> Self {
        Self { lines: Chunked::new(1), used: 0, vacant: BTreeMap::new() }
    }

    /// Asks for the line of a value. A hint: changes nothing.
    #[inline(always)]
    pub(super) fn approach(&self, stretch: Stretch, value: u32) {
        prefetch(self.line(stretch.home(value)));
    }

    /// As [`Line::enter`], in the lines of a key; `None` where that of the value alone cannot tell.
    #[inline(always)]
    pub(super) fn enter(&mut self, stretch: Stretch, since: Since, held: Held) -> Option<u64> {
        self.line_mut(stretch.home(held.0)).enter(since, held)
    }

    /// As [`Self::enter`], for a value that its line alone cannot tell of; `None` if it is not there and the key should
    /// have more lines.
    pub(super) fn enter_further(
        &mut self,
        stretch: Stretch,
        since: Since,
        (value, after): Held,
    ) -> Option<u64> {
        for (passed, at) in stretch.way(value).enumerate() {
            let line = self.line_mut(at);
            let (found, _) = line.seek(since, value);
            if found > 0 {
                let known = &mut line.afters[found.trailing_zeros() as usize];
                let before = since.at(std::mem::replace(known, since.to(after)));
                stretch.way(value).take(passed).for_each(|at| self.line_mut(at).pass(since, after));
                return Some(before);
            }
            if !line.is_passed(since) {
                break;
            }
        }
        if self.are_few(stretch, since, value) {
            return None;
        }
        self.put(stretch, since, (value, after));
        Some(0)
    }

    /// Puts a value that is not there into its line or the next that has a place, where lines
    /// [are not few](Self::are_few).
    fn put(&mut self, stretch: Stretch, since: Since, held: Held) {
        for at in stretch.way(held.0) {
            let line = self.line_mut(at);
            if line.put(since, held) {
                return;
            }
            line.pass(since, held.1);
        }
        unreachable!("lines have more places than values");
    }

    /// Whether a key should have more lines, as one knows from that of a value for which no place is left there.
    fn are_few(&self, stretch: Stretch, since: Since, value: u32) -> bool {
        // Others than that line, if there are enough: what is in it is not like what is in any.
        let some = stretch.way(value).skip(1).chain([stretch.home(value)]).take(LOOKED_AT);
        let short = |(lines, values)| values > MANY * lines;
        short(self.fill(since, some)) && short(self.fill(since, stretch.all()))
    }

    /// Whether a key should have fewer lines. `any` chooses those that are looked at first.
    pub(super) fn are_many(&self, stretch: Stretch, since: Since, any: u32) -> bool {
        let idle = |(lines, values)| values <= FEW * lines;
        stretch.count > 1
            && idle(self.fill(since, stretch.way(any).take(LOOKED_AT)))
            && idle(self.fill(since, stretch.all()))
    }

    /// How many some lines are, and how many values are in them.
    fn fill(&self, since: Since, some: impl Iterator<Item = usize>) -> (usize, usize) {
        let values = |at: usize| self.line(at).held(since).count();
        some.fold((0, 0), |(lines, sum), at| (lines + 1, sum + values(at)))
    }

    /// Gives lines to a key, so many that these values fit in them and more; `None` if that would be too many.
    pub(super) fn take(&mut self, since: Since, held: &[Held]) -> Option<Stretch> {
        let count = if held.len() > ALONE { rounded(held.len().div_ceil(LAID_OUT)) } else { 1 };
        if count > MOST {
            return None;
        }
        let vacant = self.vacant.get_mut(&count).and_then(Vec::pop);
        let stretch = Stretch { first: vacant.unwrap_or_else(|| self.make(count)), count };
        stretch.all().for_each(|at| *self.line_mut(at) = Line::default());
        for &held in held {
            self.put(stretch, since, held);
        }
        Some(stretch)
    }

    /// Makes new lines, and returns the first.
    fn make(&mut self, count: usize) -> usize {
        self.used += count;
        self.lines.grow(self.used);
        self.used - count
    }

    /// Takes its lines from a key, and appends the values in them that are needed.
    pub(super) fn give_back(&mut self, stretch: Stretch, since: Since, held: &mut Vec<Held>) {
        stretch.all().for_each(|at| held.extend(self.line(at).held(since)));
        self.vacant.entry(stretch.count).or_default().push(stretch.first);
    }

    #[inline(always)]
    fn line(&self, at: usize) -> &Line {
        self.lines.only(at)
    }

    #[inline(always)]
    fn line_mut(&mut self, at: usize) -> &mut Line {
        self.lines.only_mut(at)
    }

    /// Bytes that all of them take.
    pub(super) fn bytes(&self) -> usize {
        self.lines.bytes()
    }

    /// How many lines are somebody's or were.
    #[cfg(test)]
    pub(super) const fn used(&self) -> usize {
        self.used
    }
}

/// So many lines, or a little more: a power of two, or half as many again. Lines are given to others when nobody has them
/// any more, but only as many at once as they were.
const fn rounded(lines: usize) -> usize {
    let power = lines.next_power_of_two();
    if lines <= power / 4 * 3 { power / 4 * 3 } else { power }
}

/// A value for each of them: all belong in the first line of a key or in the last. They are multiplied by the inverse of
/// what spreads them.
#[cfg(test)]
pub(super) const fn side_by_side(value: u32) -> u32 {
    value.wrapping_sub(20).wrapping_mul(0x144c_bc89)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_rounded_up_to_few_sizes() {
        assert_eq!([1, 2, 3, 4, 5, 6, 7, 9, 13, 63].map(rounded), [1, 2, 3, 4, 6, 6, 8, 12, 16, 64]);
    }
}
