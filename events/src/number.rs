//! Numbers on the wire that are not counts.
//!
//! They are read by the standard library's parser: `serde_json` without its `float_roundtrip` feature may
//! be wrong in the last bit, and a transaction that is decoded and encoded once more must not change.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// For fields that must hold a finite number.
pub(crate) mod exact {
    use super::{Deserializer, parse, raw};

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        parse(raw(d)?.get())
    }
}

/// For what a rule observed, which may be a count or a ratio: written without `.0` when it is whole.
/// Not-a-number and infinity, which JSON lacks, become `null` and are read back as not-a-number: a strange
/// figure beside a decision must not make the decision unreadable.
pub(crate) mod figure {
    use serde::Serializer;

    use super::{Deserializer, parse, raw, whole};

    #[allow(clippy::trivially_copy_pass_by_ref)] // the signature serde asks for
    pub(crate) fn serialize<S: Serializer>(value: &f64, s: S) -> Result<S::Ok, S::Error> {
        match whole(*value) {
            Some(whole) => s.serialize_i64(whole),
            None if value.is_finite() => s.serialize_f64(*value),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
        let text = raw(d)?;
        if text.get() == "null" { Ok(f64::NAN) } else { parse(text.get()) }
    }
}

/// A figure as an integer, when it is whole and so small that no other whole number has the same double.
#[must_use]
pub fn whole(figure: f64) -> Option<i64> {
    const LARGEST_EXACT: f64 = 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation)] // whole and below 2^53
    (figure.fract() == 0.0 && figure.abs() < LARGEST_EXACT).then_some(figure as i64)
}

fn raw<'de, D: Deserializer<'de>>(d: D) -> Result<Box<RawValue>, D::Error> {
    Box::<RawValue>::deserialize(d)
}

fn parse<E: serde::de::Error>(text: &str) -> Result<f64, E> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| E::custom("expected a number"))
}
