//! Floats as integers of the same order, so that one accumulator serves both.

/// An integer that compares as the float does (the total order of IEEE 754).
pub(crate) const fn float_to_ordered(value: f64) -> i64 {
    let bits = value.to_bits().cast_signed();
    bits ^ (((bits >> 63) as u64) >> 1).cast_signed()
}

/// The float that [`float_to_ordered`] made the integer of.
pub(crate) const fn ordered_to_float(ordered: i64) -> f64 {
    let bits = ordered ^ (((ordered >> 63) as u64) >> 1).cast_signed();
    f64::from_bits(bits.cast_unsigned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_value_survive() {
        let floats = [f64::NEG_INFINITY, -1e300, -1.5, -0.0, 0.0, f64::MIN_POSITIVE, 1.5, 1e300];
        for pair in floats.windows(2) {
            assert!(float_to_ordered(pair[0]) < float_to_ordered(pair[1]), "{pair:?}");
        }
        for float in floats {
            assert_eq!(ordered_to_float(float_to_ordered(float)).to_bits(), float.to_bits());
        }
    }
}
