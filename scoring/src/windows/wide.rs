//! Exact sums of floats and of squares: 256-bit fixed point.
//!
//! A float sum that values enter and leave would drift, and would depend on their order, so a restored
//! state would differ in its last bits. Fixed point does neither. After the idea of Kulisch's long
//! accumulator, cut to the range that occurs.

/// A two's complement number of 256 bits, least significant word first.
pub(super) type Wide = [u64; 4];

/// Bits behind the point where floats are summed.
pub(super) const FRACTION_BITS: u32 = 128;
/// Floats of this magnitude or more do not count in sums: more than 2^53 of them would not fit.
pub(super) const FLOAT_LIMIT: f64 = (1_u128 << 74) as f64;
/// Floats of this magnitude or more do not count in sums of squares.
pub(super) const SQUARE_LIMIT: f64 = (1_u128 << 37) as f64;

const MANTISSA_BITS: u32 = 52;
const EXPONENT_BIAS: i32 = 1075;

/// Adds `value` to `sum`.
#[inline]
pub(super) fn add(sum: &mut [u64], value: Wide) {
    let mut carry = false;
    for (word, other) in sum.iter_mut().zip(value) {
        let (s, first) = word.overflowing_add(other);
        let (s, second) = s.overflowing_add(u64::from(carry));
        *word = s;
        carry = first | second;
    }
}

/// The additive inverse.
#[inline]
pub(super) fn negated(value: Wide) -> Wide {
    let mut negated = value.map(|word| !word);
    add(&mut negated, [1, 0, 0, 0]);
    negated
}

/// The number times 1, -1 or 0, without a branch.
#[inline(always)]
pub(super) fn signed(value: Wide, sign: i64) -> Wide {
    let negative = (sign >> 63).cast_unsigned();
    let counts = (sign & 1).wrapping_neg().cast_unsigned();
    let mut signed = value.map(|word| (word & counts) ^ negative);
    add(&mut signed, [negative & 1, 0, 0, 0]);
    signed
}

/// The square of an integer, exactly.
#[inline]
pub(super) fn square_of_int(value: i64) -> Wide {
    let magnitude = u128::from(value.unsigned_abs());
    from_u128(magnitude * magnitude)
}

/// A float below [`FLOAT_LIMIT`] as fixed point; digits smaller than 2^-128 are cut off.
#[inline]
pub(super) fn of_float(value: f64) -> Wide {
    let (mantissa, exponent) = parts(value);
    let magnitude = shifted(u128::from(mantissa), exponent + FRACTION_BITS.cast_signed());
    if value < 0.0 { negated(magnitude) } else { magnitude }
}

/// The square of a float below [`SQUARE_LIMIT`]; digits smaller than 2^-128 are cut off.
#[inline]
pub(super) fn square_of_float(value: f64) -> Wide {
    let (mantissa, exponent) = parts(value);
    let square = u128::from(mantissa) * u128::from(mantissa);
    shifted(square, 2 * exponent + FRACTION_BITS.cast_signed())
}

/// The number as the sum of two floats, the second below the first's last digit, scaled down by
/// `fraction_bits`.
pub(super) fn to_double_double(value: &[u64], fraction_bits: u32) -> (f64, f64) {
    let value: Wide = [value[0], value[1], value[2], value[3]];
    let negative = value[3] >> 63 == 1;
    let magnitude = if negative { negated(value) } else { value };
    let (mut high, mut low) = (0.0, 0.0);
    // Words in halves: 32 bits convert exactly, and so do their products with powers of two.
    for (i, word) in (0_i32..4).zip(magnitude).rev() {
        if word == 0 {
            continue;
        }
        for (half, bits) in [(1, word >> 32), (0, word & 0xffff_ffff)] {
            #[allow(clippy::cast_precision_loss)] // 32 bits fit
            let part = bits as f64 * power_of_two(64 * i + 32 * half - fraction_bits.cast_signed());
            let sum = high + part;
            // Fast two-sum: parts fall in magnitude, except where `high` is still 0.
            low += part - (sum - high);
            high = sum;
        }
    }
    let sum = high + low;
    let low = low - (sum - high);
    if negative { (-sum, -low) } else { (sum, low) }
}

/// `n * squares - sum^2` over `n^2`: the variance of a population, without the cancellation that floats
/// alone would suffer. Double-double arithmetic after Dekker (1971).
pub(super) fn variance(n: u64, sum: (f64, f64), squares: (f64, f64)) -> f64 {
    #[allow(clippy::cast_precision_loss)] // counts are far below 2^53
    let n = n as f64;
    let sum_squared = product(sum, sum);
    let mean_part = quotient(sum_squared, n);
    let (high, error) = two_sum(squares.0, -mean_part.0);
    ((high + (error + squares.1 - mean_part.1)) / n).max(0.0)
}

/// 2^`exponent`, for exponents of normal floats.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::from((exponent + 1023).unsigned_abs()) << MANTISSA_BITS)
}

fn from_u128(value: u128) -> Wide {
    #[allow(clippy::cast_possible_truncation)] // the two halves
    [value as u64, (value >> 64) as u64, 0, 0]
}

/// `value = mantissa * 2^exponent`, without the sign.
fn parts(value: f64) -> (u64, i32) {
    let bits = value.to_bits();
    let exponent = i32::try_from((bits >> MANTISSA_BITS) & 0x7ff).unwrap_or(0);
    let fraction = bits & ((1 << MANTISSA_BITS) - 1);
    if exponent == 0 {
        (fraction, 1 - EXPONENT_BIAS)
    } else {
        (fraction | 1 << MANTISSA_BITS, exponent - EXPONENT_BIAS)
    }
}

/// `value * 2^shift`, whole digits only.
fn shifted(value: u128, shift: i32) -> Wide {
    if shift < 0 {
        return from_u128(value.checked_shr(shift.unsigned_abs()).unwrap_or(0));
    }
    let (words, bits) = ((shift / 64).unsigned_abs() as usize, shift.unsigned_abs() % 64);
    let low = value << bits;
    let over = if bits == 0 { 0 } else { value >> (128 - bits) };
    let mut wide = [0; 4];
    #[allow(clippy::cast_possible_truncation)] // the words of a number of 192 bits
    for (place, word) in wide[words.min(4)..].iter_mut().zip([low as u64, (low >> 64) as u64, over as u64]) {
        *place = word;
    }
    wide
}

fn two_sum(a: f64, b: f64) -> (f64, f64) {
    let sum = a + b;
    let of_b = sum - a;
    (sum, (a - (sum - of_b)) + (b - of_b))
}

/// Dekker's product: the rounded product and its error.
fn two_product(a: f64, b: f64) -> (f64, f64) {
    const SPLIT: f64 = 134_217_729.0; // 2^27 + 1
    let split = |x: f64| {
        let scaled = SPLIT * x;
        let high = scaled - (scaled - x);
        (high, x - high)
    };
    let product = a * b;
    let ((ah, al), (bh, bl)) = (split(a), split(b));
    (product, ((ah * bh - product) + ah * bl + al * bh) + al * bl)
}

fn product(a: (f64, f64), b: (f64, f64)) -> (f64, f64) {
    let (high, error) = two_product(a.0, b.0);
    let low = error + (a.0 * b.1 + a.1 * b.0);
    let sum = high + low;
    (sum, low - (sum - high))
}

fn quotient(a: (f64, f64), n: f64) -> (f64, f64) {
    let high = a.0 / n;
    let (product, error) = two_product(high, n);
    let low = ((a.0 - product) - error + a.1) / n;
    let sum = high + low;
    (sum, low - (sum - high))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn float(value: Wide) -> f64 {
        to_double_double(&value, FRACTION_BITS).0
    }

    #[test]
    fn floats_survive_and_cancel_exactly() {
        for value in [0.0, 1.0, -1.0, 0.1, -123.456, 1e22, -1e-20, f64::MIN_POSITIVE] {
            let wide = of_float(value);
            let expected = if value.abs() < 1e-38 { 0.0 } else { value };
            assert!((float(wide) - expected).abs() <= f64::EPSILON * expected.abs(), "{value}");
            let mut sum = wide;
            add(&mut sum, negated(wide));
            assert_eq!((signed(wide, 1), signed(wide, -1), signed(wide, 0)), (wide, negated(wide), [0; 4]));
            assert_eq!(sum, [0; 4], "{value}");
        }
        assert!((float(square_of_float(-1.5)) - 2.25).abs() < f64::EPSILON);
        assert_eq!(square_of_int(i64::MIN), [0, 1 << 62, 0, 0]);
    }

    proptest! {
        #[test]
        fn a_sum_does_not_depend_on_its_order(list in prop::collection::vec(-1e15..1e15_f64, 1..50)) {
            let total = |list: &[f64]| {
                let mut sum = [0; 4];
                list.iter().for_each(|&v| add(&mut sum, of_float(v)));
                sum
            };
            let mut back = list.clone();
            back.reverse();
            prop_assert_eq!(total(&list), total(&back));
        }

        #[test]
        fn variance_is_that_of_shifted_values(list in prop::collection::vec(0.0..1e3_f64, 2..40)) {
            let of = |list: &[f64]| {
                let (mut sum, mut squares) = ([0; 4], [0; 4]);
                for &v in list {
                    add(&mut sum, of_float(v));
                    add(&mut squares, square_of_float(v));
                }
                let parts = |w: Wide| to_double_double(&w, FRACTION_BITS);
                variance(list.len() as u64, parts(sum), parts(squares))
            };
            #[allow(clippy::cast_precision_loss)]
            let n = list.len() as f64;
            let mean = list.iter().sum::<f64>() / n;
            let two_pass = list.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            prop_assert!((of(&list) - two_pass).abs() <= 1e-9 * two_pass.max(1e-9));
            let far: Vec<f64> = list.iter().map(|v| (v * 1024.0).round() / 1024.0 + 1e9).collect();
            let near: Vec<f64> = far.iter().map(|v| v - 1e9).collect();
            prop_assert!((of(&far) - of(&near)).abs() <= 1e-9 * of(&near).max(1e-9));
        }
    }
}
