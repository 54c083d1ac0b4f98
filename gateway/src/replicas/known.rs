//! What Redis keeps of an accepted transaction: its entry in the ledger, as text, and once it is decided the
//! document that its merchant is told. No card number is in either.

use eventlog::Position;

use crate::ledger::Entry;

/// What is known of an accepted transaction, and its document if that is at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) entry: Entry,
    /// Only of a decided one.
    pub(crate) view: Option<Vec<u8>>,
}

impl From<Entry> for Known {
    fn from(entry: Entry) -> Self {
        Self { entry, view: None }
    }
}

/// See `scripts`.
pub(super) fn text(entry: &Entry) -> String {
    let Position { partition, offset } = entry.created;
    let (merchant, livemode) = (entry.merchant.as_str(), u8::from(entry.livemode));
    format!("E|{merchant}|{livemode}|{}|{partition}|{offset}|{}", entry.accepted_at_us, entry.fingerprint)
}

/// Nothing when it is not one of ours.
pub(super) fn parse(text: &str) -> Option<Entry> {
    let fields: Vec<&str> = text.splitn(7, '|').collect();
    let ["E", merchant, livemode, accepted_at_us, partition, offset, fingerprint] = fields[..] else {
        return None;
    };
    Some(Entry {
        merchant: merchant.parse().ok()?,
        livemode: livemode == "1",
        recovered: true,
        accepted_at_us: accepted_at_us.parse().ok()?,
        fingerprint: fingerprint.to_owned(),
        created: Position { partition: partition.parse().ok()?, offset: offset.parse().ok()? },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_nothing_else_is() {
        let entry = Entry {
            merchant: "shop".parse().unwrap(),
            livemode: true,
            recovered: true,
            accepted_at_us: 1_800_000_000_000_001,
            fingerprint: "k1_00ff".to_owned(),
            created: Position { partition: 3, offset: u64::MAX },
        };
        assert_eq!(parse(&text(&entry)), Some(entry));
        for other in ["", "E", "C|a1x0|17|k1_00ff", "E|shop|1|x|3|4|k1_00ff", "E|No Shop|1|5|3|4|k1_00ff"] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
