//! What an answer says, read without parsing it: the load generator shares its processors with the
//! server, and must not take them.

use events::Outcome;

/// What of an answer to a submitted transaction is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Digest<'a> {
    pub(crate) outcome: Option<Outcome>,
    pub(crate) degraded: bool,
    pub(crate) pending: bool,
    pub(crate) transaction_id: Option<&'a str>,
}

/// Reads the first occurrence of each field, wherever it is nested.
pub(crate) fn digest(body: &[u8]) -> Digest<'_> {
    let text = |key: &[u8]| value(body, key).and_then(quoted);
    Digest {
        outcome: text(b"\"outcome\"")
            .and_then(|name| Outcome::ALL.into_iter().find(|outcome| outcome.as_str() == name)),
        degraded: value(body, b"\"degraded\"").is_some_and(|rest| rest.starts_with(b"true")),
        pending: text(b"\"status\"") == Some("pending"),
        transaction_id: find(body, b"\"txn_").and_then(|at| quoted(&body[at..])),
    }
}

/// What follows a key's colon.
fn value<'a>(body: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    let after = &body[find(body, key)? + key.len()..];
    Some(after.trim_ascii_start().strip_prefix(b":")?.trim_ascii_start())
}

fn quoted(text: &[u8]) -> Option<&str> {
    let text = text.strip_prefix(b"\"")?;
    let end = text.iter().position(|&b| b == b'"')?;
    std::str::from_utf8(&text[..end]).ok()
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_read_compact_or_spaced() {
        let id = "txn_0123456789abcdef0123456789abcdef";
        for body in [
            format!(
                r#"{{"id":"{id}","status":"decided","decision":{{"outcome":"decline","degraded":false}}}}"#
            ),
            format!("{{ \"id\" : \"{id}\",\n \"decision\": {{\"outcome\" : \"decline\"}} }}"),
        ] {
            let digest = digest(body.as_bytes());
            assert_eq!(digest.outcome, Some(Outcome::Decline));
            assert_eq!(digest.transaction_id, Some(id));
            assert!(!digest.degraded && !digest.pending);
        }
    }

    #[test]
    fn pending_and_degraded_answers_are_told_apart() {
        let pending = digest(br#"{"id":"txn_1","status":"pending"}"#);
        assert!(pending.pending && pending.outcome.is_none());
        assert!(digest(br#"{"decision":{"outcome":"approve","degraded":true}}"#).degraded);
    }

    #[test]
    fn an_answer_that_is_not_json_digests_to_nothing() {
        for body in [&b""[..], b"<html>", b"\"outcome", b"{\"outcome\":\"", b"\"txn_"] {
            assert_eq!(digest(body), Digest::default());
        }
    }
}
