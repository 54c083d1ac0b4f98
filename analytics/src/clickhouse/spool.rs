//! Batches that wait on disk while ClickHouse is away, and those it refuses.
//!
//! A file is written whole, synced, and renamed into place, so a file with a name is complete. It is not what
//! makes a batch count once: that is its plan in the log, from which it can be made again. It keeps batches
//! out of memory while they wait, and from the log's retention.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use eventlog::NewRecord;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3;

use super::batch::{Batch, Section};
use super::plan::Spans;
use crate::positions::TOPICS;
use crate::schema::Table;

const MAGIC: [u8; 8] = *b"PSBATCH1";
const WAITING: &str = "batch";
const REFUSED: &str = "refused";
const UNFINISHED: &str = "tmp";
/// A header longer than this is no header.
const MAX_HEADER_BYTES: usize = 256 * 1024 * 1024;

#[derive(Serialize, Deserialize)]
struct Header {
    topic: String,
    spans: Spans,
    sections: Vec<SectionHeader>,
    dead: Vec<DeadLetter>,
    /// Of refused rows: what they are known by to ClickHouse, and what it said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refusal: Option<Refusal>,
}

/// Why rows were refused.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) lineage: String,
    pub(crate) error: String,
}

#[derive(Serialize, Deserialize)]
struct SectionHeader {
    table: Table,
    rows: u64,
    bytes: usize,
}

#[derive(Serialize, Deserialize)]
struct DeadLetter {
    key: String,
    value: String,
    headers: Vec<(String, String)>,
    timestamp_ms: i64,
}

/// A file of the spool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Spooled {
    pub(crate) path: PathBuf,
    pub(crate) topic: &'static str,
    pub(crate) spans: Spans,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
}

/// The directory.
#[derive(Debug)]
pub(crate) struct Spool {
    dir: PathBuf,
    next: u64,
}

impl Spool {
    /// Opens the directory, which is made if need be; files that were not finished are removed.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(dir).with_context(|| format!("making the spool {}", dir.display()))?;
        let mut next = 0;
        for path in list(dir)? {
            if has_extension(&path, UNFINISHED) {
                remove(&path)?;
            } else if let Some(number) = number(&path) {
                next = next.max(number + 1);
            }
        }
        Ok(Self { dir: dir.to_owned(), next })
    }

    /// The batches that wait, oldest first. A damaged file is set aside: its records are in the log.
    pub(crate) fn waiting(&self) -> anyhow::Result<Vec<Spooled>> {
        let mut found = Vec::new();
        for path in list(&self.dir)?.into_iter().filter(|path| has_extension(path, WAITING)) {
            match read(&path) {
                Ok((batch, _)) => found.push(Spooled {
                    bytes: batch.bytes(),
                    rows: batch.rows(),
                    topic: batch.topic,
                    spans: batch.spans,
                    path,
                }),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(path = %path.display(), error, "a spooled batch is damaged: it is made again from the log");
                    remove(&path)?;
                }
            }
        }
        Ok(found)
    }

    /// The files of refused batches.
    pub(crate) fn refused(&self) -> anyhow::Result<Vec<PathBuf>> {
        Ok(list(&self.dir)?.into_iter().filter(|path| has_extension(path, REFUSED)).collect())
    }

    /// Writes a batch; when this returns it is durable.
    pub(crate) fn put(&mut self, batch: &Batch) -> anyhow::Result<Spooled> {
        let path = self.write(batch, None, WAITING)?;
        Ok(Spooled {
            path,
            topic: batch.topic,
            spans: batch.spans.clone(),
            rows: batch.rows(),
            bytes: batch.bytes(),
        })
    }

    /// Keeps rows that ClickHouse refuses.
    pub(crate) fn refuse(&mut self, batch: &Batch, refusal: Refusal) -> anyhow::Result<PathBuf> {
        self.write(batch, Some(refusal), REFUSED)
    }

    fn write(&mut self, batch: &Batch, refusal: Option<Refusal>, kind: &str) -> anyhow::Result<PathBuf> {
        let name = format!("{:012}-{}", self.next, batch.topic);
        self.next += 1;
        let path = self.dir.join(format!("{name}.{kind}"));
        let unfinished = self.dir.join(format!("{name}.{UNFINISHED}"));
        let written = write_file(&unfinished, batch, refusal)
            .and_then(|()| std::fs::rename(&unfinished, &path).map_err(Into::into))
            .and_then(|()| File::open(&self.dir)?.sync_all().map_err(Into::into));
        if written.is_err() {
            // What is left of it would only fill the disk further.
            let _ = std::fs::remove_file(&unfinished);
        }
        written.with_context(|| format!("writing the spooled batch {}", path.display()))?;
        Ok(path)
    }
}

fn write_file(path: &Path, batch: &Batch, refusal: Option<Refusal>) -> anyhow::Result<()> {
    let text = |bytes: &Bytes| hex::encode(bytes);
    let header = serde_json::to_vec(&Header {
        topic: batch.topic.to_owned(),
        spans: batch.spans.clone(),
        sections: batch
            .sections
            .iter()
            .map(|s| SectionHeader { table: s.table, rows: s.rows, bytes: s.data.len() })
            .collect(),
        dead: batch
            .dead
            .iter()
            .map(|d| DeadLetter {
                key: text(&d.key),
                value: text(&d.value),
                headers: d.headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
                timestamp_ms: d.timestamp_ms,
            })
            .collect(),
        refusal,
    })?;
    let mut file = File::create(path)?;
    let mut hash = Xxh3::new();
    let mut put = |bytes: &[u8]| {
        hash.update(bytes);
        file.write_all(bytes)
    };
    put(&MAGIC)?;
    put(&(header.len() as u64).to_le_bytes())?;
    put(&header)?;
    for section in &batch.sections {
        put(&section.data)?;
    }
    let digest = hash.digest();
    file.write_all(&digest.to_le_bytes())?;
    file.sync_all()?;
    Ok(())
}

/// Reads a file back.
pub(crate) fn read(path: &Path) -> anyhow::Result<(Batch, Option<Refusal>)> {
    let mut raw = Vec::new();
    File::open(path).and_then(|mut file| file.read_to_end(&mut raw)).context("reading it")?;
    ensure!(raw.len() >= MAGIC.len() + 16 && raw[..8] == MAGIC, "it does not begin as a spooled batch does");
    let digest = raw.split_off(raw.len() - 8);
    let mut hash = Xxh3::new();
    hash.update(&raw);
    ensure!(hash.digest().to_le_bytes()[..] == digest[..], "its checksum is wrong");
    let mut rest = Bytes::from(raw).split_off(8);
    let header_bytes = u64::from_le_bytes(rest.split_to(8)[..].try_into()?);
    let header_bytes = usize::try_from(header_bytes)?;
    ensure!(header_bytes <= rest.len() && header_bytes <= MAX_HEADER_BYTES, "its header is cut off");
    let header: Header =
        serde_json::from_slice(&rest.split_to(header_bytes)).context("reading its header")?;
    let topic = TOPICS.into_iter().find(|topic| *topic == header.topic).context("its topic is unknown")?;
    let mut sections = Vec::new();
    for section in header.sections {
        ensure!(section.bytes <= rest.len(), "its rows are cut off");
        sections.push(Section {
            table: section.table,
            rows: section.rows,
            data: rest.split_to(section.bytes),
        });
    }
    let dead = header.dead.into_iter().map(|dead| undead(topic, &dead)).collect::<anyhow::Result<_>>()?;
    Ok((Batch { topic, spans: header.spans, sections, dead }, header.refusal))
}

fn undead(topic: &str, dead: &DeadLetter) -> anyhow::Result<NewRecord> {
    let bytes = |text: &str| hex::decode(text).map(Bytes::from).context("reading a dead letter");
    Ok(NewRecord {
        topic: events::topics::dead_letter(topic),
        key: bytes(&dead.key)?,
        value: bytes(&dead.value)?,
        headers: dead
            .headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), bytes(value)?)))
            .collect::<anyhow::Result<_>>()?,
        timestamp_ms: dead.timestamp_ms,
    })
}

/// Removes a file that is not needed any more. That it is gone already is no error.
pub(crate) fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}

fn list(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let listing = || format!("listing the spool {}", dir.display());
    let entries = std::fs::read_dir(dir).with_context(listing)?;
    let mut paths: Vec<PathBuf> =
        entries.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>().with_context(listing)?;
    paths.sort();
    Ok(paths)
}

fn number(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.split('-').next()?.parse().ok()
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use events::topics;

    use super::*;
    use crate::clickhouse::plan::Span;

    fn batch(to: u64) -> Batch {
        Batch {
            topic: topics::ALERTS,
            spans: Spans(BTreeMap::from([(2, Span { from: 0, to })])),
            sections: vec![Section { table: Table::Alerts, rows: 3, data: Bytes::from_static(b"arrow") }],
            dead: vec![NewRecord {
                topic: topics::dead_letter(topics::ALERTS),
                key: Bytes::from_static(b"k"),
                value: Bytes::from_static(b"\xff"),
                headers: vec![("reason".to_owned(), Bytes::from_static(b"bad"))],
                timestamp_ms: 7,
            }],
        }
    }

    #[test]
    fn what_was_put_is_there_after_a_restart_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        let paths: Vec<_> = (1..=3).map(|n| spool.put(&batch(n)).unwrap().path).collect();
        std::fs::write(dir.path().join("000000000009-x.tmp"), b"half").unwrap();
        let spool = Spool::open(dir.path()).unwrap();
        let waiting = spool.waiting().unwrap();
        assert_eq!(waiting.iter().map(|w| w.path.clone()).collect::<Vec<_>>(), paths);
        assert_eq!(read(&waiting[2].path).unwrap().0, batch(3));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3, "the unfinished file is gone");
        assert_eq!(spool.next, 3);
    }

    #[test]
    fn a_damaged_file_is_removed_because_the_log_has_its_records() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path()).unwrap();
        let good = spool.put(&batch(1)).unwrap();
        let bad = spool.put(&batch(2)).unwrap();
        let mut raw = std::fs::read(&bad.path).unwrap();
        let middle = raw.len() / 2;
        raw[middle] ^= 1;
        std::fs::write(&bad.path, raw).unwrap();
        assert_eq!(spool.waiting().unwrap(), [good]);
        assert!(!bad.path.exists());
    }
}
