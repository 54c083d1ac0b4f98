//! The tail of `transactions.created`, where there is more than one gateway: what other replicas accept goes
//! to the ledger as it comes, and whoever has to be sure can have the log read to its end.

use std::time::Duration;

use eventlog::{LogError, LoggedRecord, Position};
use events::topics;
use futures::future::try_join_all;
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::catch_up::{CatchUpError, take};
use crate::state::{App, Door};

const READ_RECORDS: usize = 512;
const WAIT: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(200);

/// Asks the tail for a round over the whole topic.
#[derive(Debug)]
pub(crate) struct Follower {
    /// Rounds asked for.
    asked: watch::Sender<u64>,
    /// Of these, those that have been made.
    made: watch::Sender<u64>,
}

impl Follower {
    pub(crate) fn new() -> Self {
        Self { asked: watch::Sender::new(0), made: watch::Sender::new(0) }
    }

    /// Waits until the ledger has every transaction that was acknowledged to anybody before this call.
    /// Returns whether it has. All who ask during one round share the next.
    pub(crate) async fn reach_end(&self, until: Instant) -> bool {
        let mut made = self.made.subscribe();
        let mut mine = 0;
        self.asked.send_modify(|asked| {
            *asked += 1;
            mine = *asked;
        });
        matches!(timeout_at(until, made.wait_for(|made| *made >= mine)).await, Ok(Ok(_)))
    }

    /// Follows the topic until `stop`.
    pub(crate) async fn tail(&self, app: &App, stop: &CancellationToken) {
        let mut door = app.door.subscribe();
        // The first catching up is not its job.
        tokio::select! {
            _ = door.wait_for(|door| *door != Door::Starting) => {}
            () = stop.cancelled() => {}
        }
        let mut asked = self.asked.subscribe();
        let mut next = app.marks.snapshot();
        let mut ready = Some(Vec::new());
        while !stop.is_cancelled() {
            let wanted = *asked.borrow_and_update();
            let everything = *self.made.borrow() < wanted;
            let read = if everything {
                read_to_end(app, &mut next).await
            } else {
                read_ready(app, &mut next, ready.take()).await
            };
            match read {
                Ok(()) if everything => {
                    self.made.send_replace(wanted);
                }
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "what other replicas accept cannot be read from the log: trying again");
                    let _ = timeout(RETRY, stop.cancelled()).await;
                    continue;
                }
            }
            let from = Position::of_all(&next);
            tokio::select! {
                waited = app.log.wait_for_any(topics::CREATED, &from, WAIT) => match waited {
                    Ok(partitions) => ready = Some(partitions),
                    // The next round shows what is wrong; without a pause it could come round at once.
                    Err(_) => {
                        let _ = timeout(RETRY, stop.cancelled()).await;
                    }
                },
                _ = asked.changed() => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// One read of each partition that has something, or of all when that is not known.
async fn read_ready(app: &App, next: &mut [u64], ready: Option<Vec<u32>>) -> Result<(), CatchUpError> {
    for (partition, next) in (0_u32..).zip(next) {
        if ready.as_ref().is_none_or(|ready| ready.contains(&partition)) {
            read(app, partition, next).await?;
        }
    }
    Ok(())
}

/// Every partition until nothing more comes.
async fn read_to_end(app: &App, next: &mut [u64]) -> Result<(), CatchUpError> {
    let partitions = (0_u32..).zip(next).map(|(partition, next)| async move {
        while read(app, partition, next).await? {}
        Ok::<(), CatchUpError>(())
    });
    try_join_all(partitions).await.map(drop)
}

/// Returns whether there was something.
async fn read(app: &App, partition: u32, next: &mut u64) -> Result<bool, CatchUpError> {
    let records = match app.log.read(topics::CREATED, partition, *next, READ_RECORDS, Duration::ZERO).await {
        Ok(records) => records,
        Err(LogError::OffsetOutOfRange { start, end, .. }) => {
            tracing::warn!(
                partition,
                from = *next,
                start,
                end,
                "transactions were removed before they were read"
            );
            *next = start.min(end);
            return Ok(true);
        }
        Err(error) => return Err(error.into()),
    };
    let Some(last) = records.last() else { return Ok(false) };
    let oldest_us = app.retention_start_us();
    for record in &records {
        follow(app, partition, record, oldest_us)?;
    }
    *next = last.offset + 1;
    Ok(true)
}

/// This replica's own records are there already, or are about to be noted by who wrote them.
fn follow(app: &App, partition: u32, record: &LoggedRecord, oldest_us: i64) -> Result<(), CatchUpError> {
    if !app.marks.has(Position { partition, offset: record.offset }) {
        take(app, partition, record, oldest_us, &app.metrics.ledger_followed)?;
    }
    Ok(())
}
