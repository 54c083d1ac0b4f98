//! Where the time of filling ClickHouse goes. Run by hand:
//! `cargo test --release -p analytics -- --ignored --nocapture clickhouse::throughput`

use std::io::Write as _;
use std::time::{Duration, Instant};

use eventlog::LoggedRecord;
use events::{Decided, Message, topics};

use super::Warehouse;
use crate::clickhouse::batch::Builder;
use crate::clickhouse::{ClickHouseConfig, Server};
use crate::tests::decided;

const RECORDS: u64 = 200_000;
const BATCH: usize = 50_000;

fn say(what: &str, took: Duration) {
    let rate = RECORDS as f64 / took.as_secs_f64();
    let _ = writeln!(std::io::stderr(), "{what:<28} {rate:>12.0} records/s ({took:?})");
}

/// The processor time of this thread so far: what others do on the machine is not in it.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures"]
async fn decoding_building_and_inserting_apart_and_together() {
    let Some(warehouse) = Warehouse::new("throughput").await else { return };
    let records: Vec<LoggedRecord> = (0..RECORDS)
        .map(|n| LoggedRecord {
            offset: n,
            key: bytes::Bytes::new(),
            value: decided(n, 0, n).encode().into(),
            headers: Vec::new(),
            timestamp_ms: 0,
        })
        .collect();
    let size = records.iter().map(|record| record.value.len()).sum::<usize>() / records.len();
    let _ = writeln!(std::io::stderr(), "{size} bytes a record");

    let began = processor_time();
    let count = records.iter().filter(|record| Decided::decode(&record.value).is_ok()).count();
    say("decode, processor", processor_time() - began);
    assert_eq!(count as u64, RECORDS);

    let mut builder = Builder::new(topics::DECIDED);
    let mut batches = Vec::new();
    let began = processor_time();
    for chunk in records.chunks(BATCH) {
        for part in chunk.chunks(2_000) {
            builder.push(0, part[0].offset, part);
        }
        batches.push(builder.finish().unwrap().unwrap().0);
    }
    say("decode and build, processor", processor_time() - began);
    let bytes: u64 = batches.iter().map(crate::clickhouse::batch::Batch::bytes).sum();
    let _ = writeln!(std::io::stderr(), "{} Arrow bytes a record", bytes / RECORDS);

    for compression in [crate::clickhouse::Wire::None, crate::clickhouse::Wire::Lz4] {
        let config = ClickHouseConfig { compression, ..warehouse.config.clone() };
        let mut server = Server::new(&config);
        server.know_settings().await.unwrap();
        let began = Instant::now();
        for (number, batch) in batches.iter().enumerate() {
            let inserts = batch.sections.iter().map(|section| {
                let token = format!("{compression:?}{number}{:?}", section.table);
                let server = &server;
                async move {
                    server.insert(section.table.as_str(), &token, section.data.clone()).await.unwrap();
                }
            });
            futures::future::join_all(inserts).await;
        }
        say(&format!("insert, {compression:?}"), began.elapsed());
    }

    warehouse.world.append(0..RECORDS).await;
    for table in ["transactions", "decisions", "rule_hits"] {
        warehouse.run(&format!("TRUNCATE TABLE {table}")).await;
    }
    let config = ClickHouseConfig { batch_max_rows: BATCH, batch_max_ms: 1_000, ..warehouse.config.clone() };
    let began = Instant::now();
    let running = warehouse.start_with(&config, warehouse.spool());
    warehouse.wait_until_stored().await;
    say("log to ClickHouse", began.elapsed());
    running.stop().await;
    assert_eq!(warehouse.numbers("SELECT uniqExact(transaction_id) FROM decisions").await, [RECORDS]);
    warehouse.end().await;
}
