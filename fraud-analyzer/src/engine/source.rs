//! Batches of transactions, from a file or made up.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use datafusion::arrow::array::{
    ArrayRef, AsArray as _, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use datafusion::arrow::datatypes::{DataType, TimestampMicrosecondType};
use futures::StreamExt as _;
use scoring::transactions::EVENT_TIME;
use scoring::{Label, transactions};

use crate::replay::{Input, LabelQueue, Mapping, check};

/// Where transactions come from.
#[derive(Debug, Clone)]
pub enum EngineInput {
    /// A Parquet or CSV file, oldest row first, and the YAML text of its mapping.
    File {
        /// The file.
        path: PathBuf,
        /// The mapping.
        mapping: String,
    },
    /// Made up.
    Synthetic(Synthetic),
}

/// How many events of how many cards over how many days. The same figures make the same events. One in
/// two hundred turns out to be fraud, which becomes known a week later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Synthetic {
    /// Events in all.
    pub events: u64,
    /// Cards, each as likely as any other. There is a terminal to every ten of them.
    pub cards: u64,
    /// Days they are spread over, evenly.
    pub days: u32,
}

impl EngineInput {
    /// Hands all batches to `take`, in order and in window time, each with what becomes known between its
    /// rows. Returns how many rows could not be transactions.
    pub(super) async fn each(
        &self,
        batch_rows: usize,
        take: &mut (dyn FnMut(RecordBatch, &[Label]) -> anyhow::Result<()> + Send),
    ) -> anyhow::Result<u64> {
        match self {
            Self::File { path, mapping } => {
                let mapping = Mapping::parse(mapping).context("reading the mapping")?;
                let input = Input::open(path, &mapping, batch_rows).await?;
                let mut stream = input.stream(0).await?;
                let mut rejected = 0;
                let mut labels = LabelQueue::default();
                while let Some(batch) = stream.next().await {
                    let checked = check(&batch.context("reading the input")?)?;
                    rejected += checked.rejected;
                    let (batch, labels) = labels.pass(&checked)?;
                    take(batch, &labels)?;
                }
                Ok(rejected)
            }
            Self::Synthetic(synthetic) => {
                let mut maker = Maker::new(*synthetic);
                while let Some(batch) = maker.next(batch_rows)? {
                    let labels = maker.labels(&batch);
                    take(batch, &labels)?;
                }
                Ok(0)
            }
        }
    }
}

struct Maker {
    spec: Synthetic,
    made: u64,
    random: u64,
    /// Frauds that are not known yet, by window time.
    frauds: VecDeque<i64>,
}

/// What of a card, or of a place, does not change.
fn mixed(n: u64, salt: u64) -> u64 {
    // SplitMix64 (Steele et al., 2014).
    let mut z = n.wrapping_add(salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Maker {
    const fn new(spec: Synthetic) -> Self {
        Self { spec, made: 0, random: 1, frauds: VecDeque::new() }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.random += 1;
        mixed(self.random, 7) % n.max(1)
    }

    /// What becomes known between the rows of a batch.
    fn labels(&mut self, batch: &RecordBatch) -> Vec<Label> {
        const KNOWN_AFTER_US: i64 = 7 * 86_400_000_000;
        const FRAUD_ONE_IN: u64 = 200;
        let column = batch.column_by_name(EVENT_TIME);
        let times_us = column.map_or(&[][..], |c| c.as_primitive::<TimestampMicrosecondType>().values());
        let mut labels = Vec::new();
        for (row, &time_us) in times_us.iter().enumerate() {
            while let Some(&window_time_us) =
                self.frauds.front().filter(|&&us| us + KNOWN_AFTER_US <= time_us)
            {
                labels.push(Label { before_row: row, window_time_us, fraud: true });
                self.frauds.pop_front();
            }
            if mixed(time_us.cast_unsigned(), 10).is_multiple_of(FRAUD_ONE_IN) {
                self.frauds.push_back(time_us);
            }
        }
        labels
    }

    #[allow(clippy::cast_precision_loss)] // places on earth
    fn next(&mut self, rows: usize) -> anyhow::Result<Option<RecordBatch>> {
        const START_US: i64 = 1_750_000_000_000_000;
        const DAY_US: i128 = 86_400_000_000;
        let rows = (self.spec.events - self.made).min(rows as u64);
        if rows == 0 {
            return Ok(None);
        }
        let terminals = (self.spec.cards / 10).max(1);
        let first = self.made;
        self.made += rows;
        let events: Vec<(u64, u64, u64, i64)> = (0..rows)
            .map(|_| {
                let (card, terminal) = (self.below(self.spec.cards), self.below(terminals));
                let spread = self.below(1 << 20);
                // Most are small, a few are large: the product of two even spreads.
                let amount = 100 + (spread & 1023) * (spread >> 10) / 20;
                (card, terminal, spread, i64::try_from(amount).unwrap_or(0))
            })
            .collect();
        let span_us = i128::from(self.spec.days) * DAY_US;
        let time = |n: u64| {
            START_US + i64::try_from(span_us * i128::from(n) / i128::from(self.spec.events)).unwrap_or(0)
        };
        type Event = (u64, u64, u64, i64);
        let text = |of: &dyn Fn(&Event) -> String| -> ArrayRef {
            Arc::new(events.iter().map(|e| Some(of(e))).collect::<StringArray>())
        };
        let card_token = |card: u64| format!("k1_{:016x}{:016x}", mixed(card, 1), mixed(card, 2));
        // One card in fifty is away from home, and one in a hundred uses another's device.
        let device = |e: &Event| if e.2.is_multiple_of(100) { mixed(e.1, 3) } else { mixed(e.0, 3) };
        let place = |e: &Event| mixed(if e.2.is_multiple_of(50) { e.1 } else { e.0 }, 4);
        let degrees = |n: u64, of: f64| ((n % 10_000) as f64 / 10_000.0 - 0.5) * of;
        let schema = transactions::schema();
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            match field.name().as_str() {
                "transaction_id" => Arc::new(
                    (first..first + rows)
                        .map(|n| Some(format!("txn_{:016x}{:016x}", mixed(n, 5), mixed(n, 6))))
                        .collect::<StringArray>(),
                ),
                "event_time" => {
                    Arc::new(TimestampMicrosecondArray::from_iter_values((first..first + rows).map(time)))
                }
                "merchant_id" => text(&|e| format!("merchant_{}", e.1 / 20)),
                "currency" => text(&|_| "USD".to_owned()),
                "amount_minor" | "reporting_amount_minor" => {
                    Arc::new(Int64Array::from_iter_values(events.iter().map(|e| e.3)))
                }
                "card" => text(&|e| card_token(e.0)),
                "bin" => text(&|e| format!("{}", 400_000 + e.0 % 997)),
                "last4" => text(&|e| format!("{:04}", e.0 % 10_000)),
                "card_brand" => text(&|_| "visa".to_owned()),
                "customer_id" => text(&|e| format!("customer_{}", e.0)),
                "email" => text(&|e| format!("{:x}@example.com", mixed(e.0, 8))),
                "device_id" => text(&|e| format!("{:x}", device(e))),
                "ip" => text(&|e| {
                    let [a, b, c, d, ..] = mixed(e.0 / 3, 9).to_le_bytes();
                    format!("{a}.{b}.{c}.{d}")
                }),
                "billing_country" => {
                    text(&|e| COUNTRIES[usize::from(mixed(e.0, 4).to_le_bytes()[7] & 7)].to_owned())
                }
                "location_country" => {
                    text(&|e| COUNTRIES[usize::from(place(e).to_le_bytes()[7] & 7)].to_owned())
                }
                "lat" => {
                    Arc::new(Float64Array::from_iter_values(events.iter().map(|e| degrees(place(e), 120.0))))
                }
                "lon" => Arc::new(Float64Array::from_iter_values(
                    events.iter().map(|e| degrees(place(e) >> 16, 360.0)),
                )),
                "mcc" => text(&|e| format!("{:04}", 5_000 + e.1 % 500)),
                "terminal_id" => text(&|e| format!("terminal_{}", e.1)),
                _ if field.is_nullable() => new_null_array(field.data_type(), events.len()),
                _ => match field.data_type() {
                    DataType::Boolean => Arc::new(BooleanArray::from(vec![true; events.len()])),
                    DataType::Int32 => Arc::new(Int32Array::from(vec![1; events.len()])),
                    _ => text(&|_| String::new()),
                },
            }
        });
        let batch = RecordBatch::try_new(Arc::clone(&schema), columns.collect());
        batch.context("made-up transactions as rows").map(Some)
    }
}

const COUNTRIES: [&str; 8] = ["DE", "FR", "US", "GB", "NL", "ES", "IT", "PL"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_figures_make_the_same_events() {
        let make = |rows| {
            let mut maker = Maker::new(Synthetic { events: 1_000, cards: 50, days: 3 });
            let mut all = Vec::new();
            while let Some(batch) = maker.next(rows).unwrap() {
                all.push(batch);
            }
            datafusion::arrow::compute::concat_batches(&transactions::schema(), &all).unwrap()
        };
        let whole = make(1_000);
        assert_eq!((whole.num_rows(), &make(77)), (1_000, &whole));
    }
}
