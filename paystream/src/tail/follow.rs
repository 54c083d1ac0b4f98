//! Following a topic of any log.

use std::time::Duration;

use anyhow::Context as _;
use eventlog::{EventLog, LogError, LoggedRecord, Position};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::entry::Entry;
use super::filter::Filter;
use crate::mask::Mask;

/// Records read from one partition at a time.
const READ_RECORDS: usize = 256;
/// How long to wait for records before looking whether somebody is still there for them.
const WAIT: Duration = Duration::from_secs(2);

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    Start,
    End,
    Offset(u64),
}

impl From {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "start" => Ok(Self::Start),
            "end" => Ok(Self::End),
            offset => {
                offset.parse().map(Self::Offset).map_err(|_| "expected start, end or an offset".to_owned())
            }
        }
    }
}

impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::End => f.write_str("end"),
            Self::Offset(offset) => write!(f, "{offset}"),
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) topic: &'static str,
    pub(crate) partition: Option<u32>,
    pub(crate) from: From,
    pub(crate) limit: Option<u64>,
    pub(crate) follow: bool,
    pub(crate) filters: Vec<Filter>,
    pub(crate) mask: Mask,
}

/// What following comes across.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Event {
    Record(Entry),
    /// Retention was faster.
    Gone {
        gone: Gone,
    },
    /// It goes on no further.
    Failed {
        error: String,
    },
}

/// Offsets of a partition that are not kept any more.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Gone {
    pub(crate) partition: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// A partition, where reading it goes on, and where it stops when nothing is followed.
struct Place {
    partition: u32,
    next: u64,
    end: u64,
}

/// Whether there is anyone who wants more.
#[derive(PartialEq)]
enum Wanted {
    More,
    Enough,
}

/// Sends what the log has, in the order of each partition, until there is enough of it or nobody is there to
/// take it. What is ready at the same time is put into the order of its time.
pub(crate) async fn follow(log: &dyn EventLog, request: &Request, out: mpsc::Sender<Event>) {
    let done = tokio::select! {
        done = run(log, request, &out) => done,
        () = out.closed() => Ok(()),
    };
    if let Err(error) = done {
        // When nobody is there any more, nobody needs to know.
        let _ = out.send(Event::Failed { error: format!("{error:#}") }).await;
    }
}

async fn run(log: &dyn EventLog, request: &Request, out: &mpsc::Sender<Event>) -> anyhow::Result<()> {
    let mut places = begin(log, request).await?;
    let mut left = request.limit.unwrap_or(u64::MAX);
    while request.follow || places.iter().any(|place| place.next < place.end) {
        let ready = ready(log, request, &places).await?;
        let mut found = Vec::new();
        let mut moved = false;
        for place in places.iter_mut().filter(|place| ready.contains(&place.partition)) {
            let before = place.next;
            take(log, request, place, out, &mut found).await?;
            moved |= place.next > before;
        }
        found.sort_by_key(|(partition, record): &(u32, LoggedRecord)| (record.timestamp_ms, *partition));
        if show(request, &found, &mut left, out).await == Wanted::Enough {
            return Ok(());
        }
        // Offsets may be left out at the end: then there is nothing before it.
        if !request.follow && !moved {
            return Ok(());
        }
    }
    Ok(())
}

/// Where each partition begins, and ends for now.
async fn begin(log: &dyn EventLog, request: &Request) -> anyhow::Result<Vec<Place>> {
    let topic = request.topic;
    let partitions = log.partitions(topic)?;
    let wanted = match request.partition {
        Some(one) if one < partitions => one..one + 1,
        Some(one) => anyhow::bail!("{topic} has the partitions 0 to {}, and no {one}", partitions - 1),
        None => 0..partitions,
    };
    let mut places = Vec::new();
    for partition in wanted {
        let bounds = log.bounds(topic, partition).await;
        let (start, end) = bounds.with_context(|| format!("reading {topic}/{partition}"))?;
        let next = match request.from {
            From::Start => start,
            From::End => end,
            From::Offset(offset) => offset.clamp(start, end),
        };
        places.push(Place { partition, next, end });
    }
    Ok(places)
}

/// The partitions that have something to read, waiting for one where more is to come.
async fn ready(log: &dyn EventLog, request: &Request, places: &[Place]) -> anyhow::Result<Vec<u32>> {
    if !request.follow {
        return Ok(places
            .iter()
            .filter(|place| place.next < place.end)
            .map(|place| place.partition)
            .collect());
    }
    let at = |place: &Place| Position { partition: place.partition, offset: place.next };
    let from: Vec<Position> = places.iter().map(at).collect();
    Ok(log.wait_for_any(request.topic, &from, WAIT).await?)
}

/// Reads on in one partition.
async fn take(
    log: &dyn EventLog,
    request: &Request,
    place: &mut Place,
    out: &mpsc::Sender<Event>,
    found: &mut Vec<(u32, LoggedRecord)>,
) -> anyhow::Result<()> {
    let (topic, partition) = (request.topic, place.partition);
    match log.read(topic, partition, place.next, READ_RECORDS, Duration::ZERO).await {
        Ok(records) => {
            let within = |record: &LoggedRecord| request.follow || record.offset < place.end;
            let records: Vec<LoggedRecord> = records.into_iter().filter(within).collect();
            if let Some(last) = records.last() {
                place.next = last.offset + 1;
            }
            found.extend(records.into_iter().map(|record| (partition, record)));
            Ok(())
        }
        Err(LogError::OffsetOutOfRange { start, .. }) if start > place.next => {
            let gone = Gone { partition, from: place.next, to: start };
            place.next = start;
            // Who is gone is noticed at the next record.
            let _ = out.send(Event::Gone { gone }).await;
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("reading {topic}/{partition}")),
    }
}

async fn show(
    request: &Request,
    found: &[(u32, LoggedRecord)],
    left: &mut u64,
    out: &mpsc::Sender<Event>,
) -> Wanted {
    for (partition, record) in found {
        if !request.filters.is_empty() {
            let Ok(value) = serde_json::from_slice(&record.value) else { continue };
            if !request.filters.iter().all(|filter| filter.matches(&value)) {
                continue;
            }
        }
        let entry = Entry::new(request.topic, *partition, record, request.mask);
        *left -= 1;
        if out.send(Event::Record(entry)).await.is_err() || *left == 0 {
            return Wanted::Enough;
        }
    }
    Wanted::More
}
