//! Records of one topic becoming a batch: the rows of each table as one Arrow stream.

use std::time::{Duration, Instant};

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, RecordBatch, UInt32Builder, UInt64Builder};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::writer::StreamWriter;
use eventlog::{LoggedRecord, NewRecord};
use events::{Alert, Decided, Label, Message, topics};
use std::sync::Arc;

use super::plan::{Span, Spans};
use crate::reader::dead_letter;
use crate::rows::Rows;
use crate::schema::Table;

/// Rows of one table, as they are sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) table: Table,
    pub(crate) rows: u64,
    /// An Arrow stream of one record batch.
    pub(crate) data: Bytes,
}

/// What one batch sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    pub(crate) topic: &'static str,
    pub(crate) spans: Spans,
    pub(crate) sections: Vec<Section>,
    /// What could not be decoded: appended with the batch's plan, and so once.
    pub(crate) dead: Vec<NewRecord>,
}

impl Batch {
    pub(crate) fn rows(&self) -> u64 {
        self.sections.iter().map(|section| section.rows).sum()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.sections.iter().map(|section| section.data.len() as u64).sum()
    }
}

#[derive(Default)]
struct Places {
    partition: UInt32Builder,
    offset: UInt64Builder,
}

/// Collects records of one topic.
pub(crate) struct Builder {
    topic: &'static str,
    rows: Rows,
    places: [Places; Table::ALL.len()],
    spans: Spans,
    dead: Vec<NewRecord>,
    records: usize,
    bytes: usize,
    since: Option<Instant>,
    worked: Duration,
}

impl Builder {
    pub(crate) fn new(topic: &'static str) -> Self {
        Self {
            topic,
            rows: Rows::default(),
            places: Default::default(),
            spans: Spans::default(),
            dead: Vec::new(),
            records: 0,
            bytes: 0,
            since: None,
            worked: Duration::ZERO,
        }
    }

    pub(crate) const fn topic(&self) -> &'static str {
        self.topic
    }

    pub(crate) const fn records(&self) -> usize {
        self.records
    }

    /// The size of the records so far, as they are in the log.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the first record was added.
    pub(crate) const fn since(&self) -> Option<Instant> {
        self.since
    }

    /// Adds records that stand one after the other in a partition, from offset `from` on.
    pub(crate) fn push(&mut self, partition: u32, from: u64, records: &[LoggedRecord]) {
        let Some(last) = records.last() else { return };
        let began = Instant::now();
        self.since.get_or_insert(began);
        for record in records {
            self.bytes += record.value.len();
            let pushed = match self.topic {
                topics::DECIDED => self.decided(partition, record),
                topics::ALERTS => self.alert(partition, record),
                _ => self.label(partition, record),
            };
            if let Err(error) = pushed {
                self.dead.push(dead_letter(self.topic, partition, record, &error));
            }
        }
        self.records += records.len();
        let to = last.offset + 1;
        self.spans.0.entry(partition).or_insert(Span { from, to }).to = to;
        self.worked += began.elapsed();
    }

    fn decided(&mut self, partition: u32, record: &LoggedRecord) -> Result<(), events::DecodeError> {
        let decided = Decided::decode(&record.value)?;
        self.rows.push_decided(&decided);
        let hits = decided.decision.reasons.len() + decided.decision.shadow_reasons.len();
        self.place(Table::Transactions, partition, record.offset, 1);
        self.place(Table::Decisions, partition, record.offset, 1);
        self.place(Table::RuleHits, partition, record.offset, hits);
        Ok(())
    }

    fn alert(&mut self, partition: u32, record: &LoggedRecord) -> Result<(), events::DecodeError> {
        self.rows.push_alert(&Alert::decode(&record.value)?);
        self.place(Table::Alerts, partition, record.offset, 1);
        Ok(())
    }

    fn label(&mut self, partition: u32, record: &LoggedRecord) -> Result<(), events::DecodeError> {
        self.rows.push_label(&Label::decode(&record.value)?);
        self.place(Table::Labels, partition, record.offset, 1);
        Ok(())
    }

    fn place(&mut self, table: Table, partition: u32, offset: u64, rows: usize) {
        let places = &mut self.places[table as usize];
        places.partition.append_value_n(partition, rows);
        for _ in 0..rows {
            places.offset.append_value(offset);
        }
    }

    /// The records so far as a batch, and how long decoding and building took; nothing when there are none.
    ///
    /// # Errors
    /// When Arrow cannot write what it built.
    pub(crate) fn finish(&mut self) -> Result<Option<(Batch, Duration)>, ArrowError> {
        if self.records == 0 {
            return Ok(None);
        }
        let began = Instant::now();
        let mut sections = Vec::new();
        let batches = self.rows.finish();
        for ((table, places), rows) in Table::ALL.into_iter().zip(&mut self.places).zip(batches) {
            let partition: ArrayRef = Arc::new(places.partition.finish());
            let offset: ArrayRef = Arc::new(places.offset.finish());
            if let Some(rows) = rows {
                sections.push(section(table, &rows, partition, offset)?);
            }
        }
        let worked = std::mem::take(&mut self.worked) + began.elapsed();
        let spans = std::mem::take(&mut self.spans);
        let dead = std::mem::take(&mut self.dead);
        (self.records, self.bytes, self.since) = (0, 0, None);
        Ok(Some((Batch { topic: self.topic, spans, sections, dead }, worked)))
    }
}

fn section(
    table: Table,
    rows: &RecordBatch,
    partition: ArrayRef,
    offset: ArrayRef,
) -> Result<Section, ArrowError> {
    let mut fields = rows.schema().fields().to_vec();
    fields.push(Arc::new(Field::new("log_partition", DataType::UInt32, false)));
    fields.push(Arc::new(Field::new("log_offset", DataType::UInt64, false)));
    let mut columns = rows.columns().to_vec();
    columns.extend([partition, offset]);
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns)?;
    let mut data = Vec::with_capacity(batch.get_array_memory_size());
    let mut writer = StreamWriter::try_new(&mut data, &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    drop(writer);
    Ok(Section { table, rows: batch.num_rows() as u64, data: data.into() })
}
