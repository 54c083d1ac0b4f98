//! Letters, whole.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::desk::Desk;
use crate::mask::Mask;
use crate::tail::{Content, Entry, printable, time};

/// Letters shown at once.
const SHOWN_MAX: u64 = 1_000;

/// Which letters: the first open ones, or the one at a place.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Which {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) limit: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) partition: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) offset: Option<u64>,
}

impl Which {
    /// As the query of a URL.
    pub(super) fn query(self) -> String {
        let numbers =
            [("limit", self.limit), ("partition", self.partition.map(u64::from)), ("offset", self.offset)];
        let given = numbers.into_iter().filter_map(|(name, number)| Some(format!("{name}={}", number?)));
        given.collect::<Vec<_>>().join("&")
    }
}

pub(crate) async fn letters(
    desk: &mut Desk,
    topic: &'static str,
    which: Which,
    mask: Mask,
) -> anyhow::Result<Vec<Entry>> {
    if let (Some(partition), Some(offset)) = (which.partition, which.offset) {
        let read = desk.log().read(topic, partition, offset, 1, Duration::ZERO).await;
        let records = read.with_context(|| format!("reading {topic}/{partition}"))?;
        let found = records.first().filter(|record| record.offset == offset);
        let record = found.with_context(|| format!("there is no letter at {topic}/{partition}/{offset}"))?;
        return Ok(vec![Entry::new(topic, partition, record, mask)]);
    }
    ensure!(which.partition.is_none() && which.offset.is_none(), "a place is a partition and an offset");
    let until = desk.ends(topic).await?;
    let limit = usize::try_from(which.limit.unwrap_or(1).min(SHOWN_MAX)).unwrap_or(usize::MAX);
    let mut entries = Vec::new();
    let mut from = None;
    while entries.len() < limit {
        let taken = desk.peek(topic, from, &until, limit - entries.len()).await?;
        if taken.letters.is_empty() && taken.repeated + taken.appended_before == 0 {
            break;
        }
        let shown = taken.letters.iter();
        entries.extend(shown.map(|letter| Entry::new(topic, letter.partition, &letter.record, mask)));
        from = Some(taken.next());
    }
    Ok(entries)
}

/// A letter as a person reads it.
pub(super) fn text(letter: &Entry) -> String {
    let mut lines = vec![
        format!("letter    {}/{}/{}", letter.topic, letter.partition, letter.offset),
        format!("time      {}", time(letter.timestamp_ms)),
        format!("key       {}", printable(&letter.key)),
    ];
    let header = |name: &str| letter.headers.get(name).map_or("-", String::as_str);
    lines.push(format!("reason    {}", printable(header("reason"))));
    let place = ["original-topic", "original-partition", "original-offset"].map(header).join("/");
    lines.push(format!("original  {}", printable(&place)));
    for (name, value) in &letter.headers {
        if name != "reason" && !name.starts_with("original-") {
            lines.push(format!("header    {}: {}", printable(name), printable(value)));
        }
    }
    lines.push(match &letter.content {
        Content::Value(value) => format!("value     {value}"),
        Content::Text(text) => format!("value     {}", printable(text)),
        Content::Hex(hex) => format!("value     0x{hex}"),
    });
    lines.push(String::new());
    lines.join("\n")
}
