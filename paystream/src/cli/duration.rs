//! `500ms`, `30s`, `5m`, `1h`.

use std::time::Duration;

const EXPECTED: &str = "give a number and a unit: 500ms, 30s, 5m or 1h";

pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds_per_unit = match &text[digits.len()..] {
        "ms" => 0.001,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return Err(EXPECTED.to_owned()),
    };
    let number: f64 = digits.parse().map_err(|_| EXPECTED.to_owned())?;
    let duration = Duration::try_from_secs_f64(number * seconds_per_unit).map_err(|_| EXPECTED.to_owned())?;
    if duration.is_zero() { Err("has to be longer than nothing".to_owned()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_number_and_a_unit() {
        for (text, ms) in [("500ms", 500), ("30s", 30_000), ("1.5m", 90_000), ("1h", 3_600_000)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "30", "s", "-1s", "0s", "1d", "infs", "NaNs", "1e400s"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
