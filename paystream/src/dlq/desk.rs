//! Dealing with the dead letters of any log, each once.
//!
//! The position of the group `dlq` in a dead-letter topic says what has been dealt with. Letters are appended
//! again in groups, by the writer called `dlq`: all of a group or none, and by one process at a time. What group
//! is under way, and where the original topic ended before the first of them, is committed before; so after a
//! crash between a group and its position, the records that are there already are found.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use eventlog::{EventLog, LogError, NewRecord, Writer};
use serde::{Deserialize, Serialize};

use super::known::Known;
use super::letter::{Letter, Origin, retried_from};
use crate::logs;

/// Whose position says what has been dealt with.
const GROUP: &str = "dlq";
/// Whose positions say what is under way.
const UNDER_WAY: &str = "dlq.retrying";
const WRITER: &str = "dlq";
/// Records read from one partition at a time.
const READ_RECORDS: usize = 512;
/// Letters that one group passes over at most.
const PASSED_MAX: usize = 4_096;
/// Letters of one group …
pub(crate) const GROUP_MAX: usize = 128;
/// … and bytes, unless a single one has more.
const GROUP_BYTES: usize = 1024 * 1024;
/// How often a log that has no room is asked again, and when.
const FULL_ATTEMPTS: u32 = 30;
const FULL_PAUSE: Duration = Duration::from_millis(500);

/// A log's dead letters and what has become of them.
pub(crate) struct Desk {
    log: Arc<dyn EventLog>,
    writer: Option<Box<dyn Writer>>,
    topics: HashMap<&'static str, Known>,
    /// Where the original topic ended is committed, for what is appended by this writer.
    marked: HashSet<&'static str>,
}

/// Some letters that follow each other.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    /// Those to append again, in order.
    pub(crate) letters: Vec<Letter>,
    /// Letters about records that have been dealt with.
    pub(crate) repeated: u64,
    /// Letters that a retry which was cut off has appended.
    pub(crate) appended_before: u64,
    /// Per partition, the offset after them.
    to: Vec<u64>,
    bytes: usize,
}

/// A letter's value in place of the one it has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Mended {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    #[serde(with = "super::hexed")]
    pub(crate) value: Vec<u8>,
}

/// What one step came to.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) retried: u64,
    pub(crate) repeated: u64,
    pub(crate) done: bool,
}

impl Desk {
    pub(crate) fn new(log: Arc<dyn EventLog>) -> Self {
        Self { log, writer: None, topics: HashMap::new(), marked: HashSet::new() }
    }

    pub(crate) fn log(&self) -> &dyn EventLog {
        &*self.log
    }

    /// Where each partition of a topic ends.
    pub(crate) async fn ends(&self, topic: &str) -> anyhow::Result<Vec<u64>> {
        let mut ends = Vec::new();
        for partition in 0..self.log.partitions(topic)? {
            ends.push(self.log.bounds(topic, partition).await?.1);
        }
        Ok(ends)
    }

    /// Where the open letters begin: per partition, what is dealt with.
    pub(crate) async fn positions(&self, topic: &str) -> anyhow::Result<Vec<u64>> {
        let mut positions = Vec::new();
        for partition in 0..self.log.partitions(topic)? {
            let (start, _) = self.log.bounds(topic, partition).await?;
            let committed = self.log.committed(GROUP, topic, partition).await?;
            positions.push(committed.unwrap_or(start).max(start));
        }
        Ok(positions)
    }

    /// The next letters from `from`, or else the first open ones: at most `max` to append again, and none at or
    /// past `until`.
    pub(crate) async fn peek(
        &mut self,
        topic: &'static str,
        from: Option<Vec<u64>>,
        until: &[u64],
        max: usize,
    ) -> anyhow::Result<Taken> {
        let positions = self.positions(topic).await?;
        self.learn(topic, &positions).await?;
        let from = from.unwrap_or(positions);
        ensure!(
            from.len() == until.len(),
            "{topic} has {} partitions, not {}: start again",
            from.len(),
            until.len()
        );
        let known = self.topics.entry(topic).or_default();
        take(&*self.log, topic, known, from, until, max).await
    }

    /// Reads the letters that were dealt with, for their places.
    async fn learn(&mut self, topic: &'static str, positions: &[u64]) -> anyhow::Result<()> {
        let known = self.topics.entry(topic).or_default();
        let set_back = known.up_to.iter().zip(positions).any(|(up_to, position)| up_to > position);
        if set_back || known.up_to.len() != positions.len() {
            let mut starts = Vec::new();
            for partition in (0..).take(positions.len()) {
                starts.push(self.log.bounds(topic, partition).await?.0);
            }
            *known = Known::from(starts);
        }
        for (partition, &position) in (0..).zip(positions) {
            let mut next = known.up_to[partition as usize];
            while next < position {
                let letters = read(&*self.log, topic, partition, next, position).await?;
                let Some(last) = letters.last() else { break };
                next = last.record.offset + 1;
                letters.iter().filter_map(Letter::origin).for_each(|origin| known.insert(origin));
            }
            known.up_to[partition as usize] = position;
        }
        Ok(())
    }

    /// Appends the next letters to their original topic, with other values where some are given for exactly
    /// these letters; then moves the position.
    pub(crate) async fn retry(
        &mut self,
        topic: &'static str,
        until: &[u64],
        max: usize,
        mended: Option<Vec<Mended>>,
    ) -> anyhow::Result<Step> {
        let step = self.retry_group(topic, until, max.min(GROUP_MAX), mended).await;
        if step.is_err() {
            // What is under way is looked for again before anything else is appended.
            self.let_go();
        }
        step
    }

    /// Counts the first letters as dealt with. Returns how many.
    pub(crate) async fn purge(
        &mut self,
        topic: &'static str,
        until: &[u64],
        max: u64,
    ) -> anyhow::Result<u64> {
        // A retry elsewhere must not go on with letters that are given up.
        self.let_go();
        self.begin(topic).await?;
        let mut purged = 0;
        let mut to = self.positions(topic).await?;
        let ends = (0..).zip(to.iter_mut().zip(until));
        for (partition, (next, &end)) in ends {
            while purged < max && *next < end {
                let letters = read(&*self.log, topic, partition, *next, end).await?;
                let wanted = usize::try_from(max - purged).unwrap_or(usize::MAX).min(letters.len());
                let Some(last) = letters[..wanted].last() else { break };
                *next = last.record.offset + 1;
                purged += wanted as u64;
            }
        }
        self.move_to(GROUP, topic, &to).await?;
        let positions = self.positions(topic).await?;
        self.learn(topic, &positions).await?;
        Ok(purged)
    }

    fn let_go(&mut self) {
        self.writer = None;
        self.topics.clear();
        self.marked.clear();
    }

    async fn retry_group(
        &mut self,
        topic: &'static str,
        until: &[u64],
        max: usize,
        mended: Option<Vec<Mended>>,
    ) -> anyhow::Result<Step> {
        let original = logs::original_of(topic).with_context(|| format!("{topic} takes no dead letters"))?;
        self.begin(topic).await?;
        let taken = self.peek(topic, None, until, max).await?;
        let passed = taken.repeated + taken.appended_before;
        let retried = taken.letters.len() as u64;
        let step = Step { retried, repeated: passed, done: retried + passed == 0 };
        if step.done {
            return Ok(step);
        }
        let records = records(topic, original, &taken.letters, mended)?;
        if !records.is_empty() {
            self.mark(topic, original).await?;
            self.move_to(UNDER_WAY, topic, &taken.to).await?;
            self.append(records).await?;
        }
        self.move_to(GROUP, topic, &taken.to).await?;
        self.learn(topic, &taken.to).await?;
        Ok(step)
    }

    /// Becomes the writer, and finds what one that was cut off has appended.
    async fn begin(&mut self, topic: &'static str) -> anyhow::Result<()> {
        if self.writer.is_none() {
            self.let_go();
            self.writer = Some(self.log.writer(WRITER).await.context("becoming the one who retries")?);
        }
        if self.topics.contains_key(topic) && self.marked.contains(topic) {
            return Ok(());
        }
        let positions = self.positions(topic).await?;
        self.learn(topic, &positions).await?;
        let Some(original) = logs::original_of(topic) else { return Ok(()) };
        let mut under_way = Vec::new();
        for (partition, &position) in (0..).zip(&positions) {
            let to = self.log.committed(UNDER_WAY, topic, partition).await?;
            under_way.push(position..to.unwrap_or_default());
        }
        if under_way.iter().all(std::ops::Range::is_empty) {
            return Ok(());
        }
        let mut appended = HashSet::new();
        for partition in 0..self.log.partitions(original)? {
            let (start, end) = self.log.bounds(original, partition).await?;
            let marked = self.log.committed(UNDER_WAY, original, partition).await?;
            let mut next = marked.unwrap_or(start).max(start);
            while next < end {
                let records = self.log.read(original, partition, next, READ_RECORDS, Duration::ZERO).await?;
                let Some(last) = records.last() else { break };
                next = last.offset + 1;
                let letters = records.iter().filter_map(|record| retried_from(topic, record));
                appended.extend(letters.filter(|(at, offset)| {
                    under_way.get(*at as usize).is_some_and(|range| range.contains(offset))
                }));
            }
        }
        tracing::info!(
            topic,
            found = appended.len(),
            "a retry was cut off: what it appended is not appended again"
        );
        self.topics.entry(topic).or_default().appended = appended;
        // The marks stay where they are until what was under way has been passed.
        self.marked.insert(topic);
        Ok(())
    }

    /// Notes where the original topic ends before anything is appended to it.
    async fn mark(&mut self, topic: &'static str, original: &'static str) -> anyhow::Result<()> {
        if self.marked.insert(topic) {
            for (partition, end) in (0..).zip(self.ends(original).await?) {
                self.log.commit(UNDER_WAY, original, partition, end).await?;
            }
        }
        Ok(())
    }

    /// Commits a group's positions where they go forward.
    async fn move_to(&self, group: &str, topic: &str, to: &[u64]) -> anyhow::Result<()> {
        for (partition, &offset) in (0..).zip(to) {
            if self.log.committed(group, topic, partition).await?.unwrap_or_default() < offset {
                let moved = self.log.commit(group, topic, partition, offset).await;
                moved.with_context(|| format!("committing the position in {topic}/{partition}"))?;
            }
        }
        Ok(())
    }

    async fn append(&mut self, records: Vec<NewRecord>) -> anyhow::Result<()> {
        let writer = self.writer.as_mut().context("not the one who retries")?;
        let mut attempts = FULL_ATTEMPTS;
        loop {
            match writer.append(records.clone()).await {
                Ok(_) => return Ok(()),
                Err(LogError::Full) if attempts > 0 => {
                    attempts -= 1;
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                Err(LogError::Fenced(_)) => {
                    bail!("another process deals with the dead letters now: see `paystream dlq list`")
                }
                Err(error) => return Err(error).context("appending letters to their original topic"),
            }
        }
    }
}

/// The records to append, with the mended values where there are some: for exactly these letters.
fn records(
    topic: &str,
    original: &'static str,
    letters: &[Letter],
    mended: Option<Vec<Mended>>,
) -> anyhow::Result<Vec<NewRecord>> {
    let values: Vec<Bytes> = match mended {
        None => letters.iter().map(|letter| letter.record.value.clone()).collect(),
        Some(mended) => {
            let place = |letter: &Letter| (letter.partition, letter.record.offset);
            ensure!(
                letters.iter().map(place).eq(mended.iter().map(|value| (value.partition, value.offset))),
                "others have dealt with some of these letters meanwhile: start again"
            );
            mended.into_iter().map(|mended| mended.value.into()).collect()
        }
    };
    let now = now_ms();
    Ok(letters.iter().zip(values).map(|(letter, value)| letter.again(topic, original, value, now)).collect())
}

/// Walks the letters of all partitions, one partition after the other.
async fn take(
    log: &dyn EventLog,
    topic: &str,
    known: &Known,
    from: Vec<u64>,
    until: &[u64],
    max: usize,
) -> anyhow::Result<Taken> {
    let mut taken = Taken { to: from, ..Taken::default() };
    let mut met: HashSet<Origin> = HashSet::new();
    for (partition, &end) in (0..).zip(until) {
        while taken.to[partition as usize] < end {
            let letters = read(log, topic, partition, taken.to[partition as usize], end).await?;
            if letters.is_empty() {
                break;
            }
            for letter in letters {
                if taken.is_full(max) {
                    return Ok(taken);
                }
                taken.to[partition as usize] = letter.record.offset + 1;
                taken.add(letter, known, &mut met);
            }
        }
    }
    Ok(taken)
}

impl Taken {
    fn is_full(&self, max: usize) -> bool {
        let passed = self.repeated + self.appended_before;
        self.letters.len() >= max || self.bytes >= GROUP_BYTES || passed >= PASSED_MAX as u64
    }

    fn add(&mut self, letter: Letter, known: &Known, met: &mut HashSet<Origin>) {
        let again = letter.origin().is_some_and(|origin| known.contains(&origin) || !met.insert(origin));
        if known.appended.contains(&(letter.partition, letter.record.offset)) {
            self.appended_before += 1;
        } else if again {
            self.repeated += 1;
        } else {
            self.bytes += letter.record.value.len();
            self.letters.push(letter);
        }
    }

    /// Where the letters after these begin.
    pub(crate) fn next(&self) -> Vec<u64> {
        self.to.clone()
    }
}

/// Letters of one partition before `end`. What retention has removed is passed over.
async fn read(
    log: &dyn EventLog,
    topic: &str,
    partition: u32,
    from: u64,
    end: u64,
) -> anyhow::Result<Vec<Letter>> {
    let at = || format!("reading {topic}/{partition}");
    let read = match log.read(topic, partition, from, READ_RECORDS, Duration::ZERO).await {
        Err(LogError::OffsetOutOfRange { start, .. }) if start > from && start < end => {
            log.read(topic, partition, start, READ_RECORDS, Duration::ZERO).await
        }
        Err(LogError::OffsetOutOfRange { start, .. }) if start > from => return Ok(Vec::new()),
        read => read,
    };
    let records = read.with_context(at)?.into_iter().filter(|record| record.offset < end);
    Ok(records.map(|record| Letter { partition, record }).collect())
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
