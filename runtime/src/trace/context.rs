//! Where a span stands in its trace, and how that is written between processes.

use std::fmt;

use axum::body::Bytes;
use opentelemetry::trace::{SpanId, TraceId};

/// The header of requests and records that carries a context, as <https://www.w3.org/TR/trace-context/> says.
pub const HEADER: &str = "traceparent";

/// The length of version 00; later versions may only append to it.
const LENGTH: usize = 55;
const FLAG_SAMPLED: u8 = 1;

/// A span of a sampled trace: what comes after it is part of the trace too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub(super) trace_id: TraceId,
    pub(super) span_id: SpanId,
}

impl TraceContext {
    /// The context that a header carries; `None` when it is no valid one, or of a trace that is not sampled.
    #[must_use]
    pub fn parse(header: &[u8]) -> Option<Self> {
        parse(header).and_then(|(context, sampled)| sampled.then_some(context))
    }

    /// The context among a record's headers.
    #[must_use]
    pub fn of_headers(headers: &[(String, Bytes)]) -> Option<Self> {
        headers.iter().find(|(name, _)| name == HEADER).and_then(|(_, value)| Self::parse(value))
    }

    /// The header of a record that what comes after it finds.
    #[must_use]
    pub fn header(self) -> (String, Bytes) {
        (HEADER.to_owned(), Bytes::from(self.to_string()))
    }

    /// The headers of a record: with the context, if there is one.
    #[must_use]
    pub fn headers(context: Option<Self>) -> Vec<(String, Bytes)> {
        context.into_iter().map(Self::header).collect()
    }

    /// The trace's id, as logs and tracing systems write it.
    #[must_use]
    pub fn trace_id(self) -> String {
        self.trace_id.to_string()
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{FLAG_SAMPLED:02x}", self.trace_id, self.span_id)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The context that a header carries, and whether its trace is sampled.
pub(super) fn parse(header: &[u8]) -> Option<(TraceContext, bool)> {
    let (head, rest) = header.split_at_checked(LENGTH)?;
    let [v0, v1, b'-', ids @ .., b'-', f0, f1] = head else { return None };
    let (trace_id, ids) = ids.split_at_checked(32)?;
    let (dash, span_id) = ids.split_first()?;
    let version = hex(&[*v0, *v1])?;
    let known_length = if version == 0 { rest.is_empty() } else { rest.first().is_none_or(|&b| b == b'-') };
    if version == 0xff || !known_length || *dash != b'-' {
        return None;
    }
    let context = TraceContext {
        trace_id: TraceId::from(hex(trace_id)?),
        span_id: SpanId::from(u64::try_from(hex(span_id)?).ok()?),
    };
    let is_valid = context.trace_id != TraceId::INVALID && context.span_id != SpanId::INVALID;
    let flags = hex(&[*f0, *f1])?;
    is_valid.then_some((context, flags & u128::from(FLAG_SAMPLED) != 0))
}

/// A number of at most 32 digits; the standard knows lower case only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, &digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(value))
    })
}

/// Whether a trace of this id is one of the share `ratio`. Every process comes to the same answer.
pub(super) fn is_sampled(trace_id: TraceId, ratio: f64) -> bool {
    let low = u128::from_be_bytes(trace_id.to_bytes()) as u64;
    #[allow(clippy::cast_precision_loss)] // a share, not a count
    let place = (low >> 11) as f64 / (1_u64 << 53) as f64;
    place < ratio
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_read_as_it_was_written() {
        let context = TraceContext::parse(EXAMPLE.as_bytes()).unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.to_string(), EXAMPLE);
        let other = ("reason".to_owned(), Bytes::from_static(b"x"));
        assert_eq!(TraceContext::of_headers(&[other.clone(), context.header()]), Some(context));
        assert_eq!(TraceContext::of_headers(&[other]), None);
        assert_eq!(TraceContext::headers(None), []);
    }

    #[test]
    fn only_sampled_traces_go_on() {
        let unsampled = EXAMPLE.replace("-01", "-00");
        assert!(matches!(parse(unsampled.as_bytes()), Some((_, false))));
        assert_eq!(TraceContext::parse(unsampled.as_bytes()), None);
        assert!(TraceContext::parse(EXAMPLE.replace("-01", "-ff").as_bytes()).is_some(), "other flags");
    }

    #[test]
    fn what_the_standard_calls_invalid_is_ignored() {
        for bad in [
            "",
            "00",
            &EXAMPLE[..54],
            &format!("{EXAMPLE}-x"),
            &format!("{EXAMPLE}0"),
            &EXAMPLE.to_uppercase(),
            &EXAMPLE.replacen("00-", "ff-", 1),
            &EXAMPLE.replacen("00-", "0g-", 1),
            &EXAMPLE.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &EXAMPLE.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &EXAMPLE.replacen("-00f", "_00f", 1),
            &EXAMPLE.replace("4bf9", "4b é"),
        ] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_later_version_may_append() {
        let later = EXAMPLE.replacen("00-", "01-", 1);
        assert!(parse(later.as_bytes()).is_some());
        assert!(parse(format!("{later}-more").as_bytes()).is_some());
        assert_eq!(parse(format!("{later}more").as_bytes()), None);
    }

    #[test]
    fn a_ratio_of_one_takes_all_and_of_zero_none() {
        for id in [1, u128::MAX, 0xffff_ffff_ffff_ffff] {
            assert!(is_sampled(TraceId::from(id), 1.0));
            assert!(!is_sampled(TraceId::from(id), 0.0));
        }
        let taken = (0..10_000_u64).map(|n| u128::from(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let taken = taken.filter(|&id| is_sampled(TraceId::from(id), 0.01)).count();
        assert!((80..120).contains(&taken), "{taken}");
    }
}
