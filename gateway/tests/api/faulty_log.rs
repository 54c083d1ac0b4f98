//! A log with faults on request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use eventlog::{EmbeddedLog, EventLog, LogError, LoggedRecord, Membership, NewRecord, Position, Writer};
use events::topics;
use tokio::sync::watch;

/// What happens to appends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Fault {
    None,
    /// Refused: nothing is written.
    Full,
    /// Reported as failed; nothing is written.
    FailedUnwritten,
    /// Reported as failed; it is written all the same.
    FailedWritten,
    /// Waits until the fault is lifted.
    Held,
    /// Written at once; the answer waits until the fault is lifted.
    #[allow(dead_code, reason = "for the tests of replicas")]
    WrittenHeld,
    /// A defect: appends panic, and reads of single records do.
    Panics,
}

/// The real log, with faults on request.
pub(crate) struct FaultyLog {
    pub(crate) inner: Arc<EmbeddedLog>,
    fault: watch::Sender<Fault>,
    /// Appends that have begun to wait while held.
    pub(crate) held: AtomicU8,
    /// Nobody is told of new transactions; reading them is as ever.
    #[allow(dead_code, reason = "for the tests of replicas")]
    pub(crate) deaf: AtomicBool,
}

impl FaultyLog {
    pub(crate) fn new(inner: Arc<EmbeddedLog>) -> Arc<Self> {
        let fault = watch::Sender::new(Fault::None);
        Arc::new(Self { inner, fault, held: AtomicU8::new(0), deaf: AtomicBool::new(false) })
    }

    pub(crate) fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    async fn lifted(&self) {
        let held = *self.fault.borrow();
        self.held.fetch_add(1, Ordering::SeqCst);
        let mut fault = self.fault.subscribe();
        fault.wait_for(|fault| *fault != held).await.expect("the log outlives its appends");
    }
}

#[async_trait]
impl EventLog for FaultyLog {
    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.inner.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        // What the analyzer writes is not what these tests disturb.
        if records.iter().all(|record| record.topic == topics::DECIDED) {
            return self.inner.append(records).await;
        }
        let fault = *self.fault.borrow();
        match fault {
            Fault::None => self.inner.append(records).await,
            Fault::Full => Err(LogError::Full),
            Fault::FailedUnwritten => Err(LogError::Storage("no such luck".to_owned())),
            Fault::FailedWritten => {
                self.inner.append(records).await?;
                Err(LogError::Storage("cannot tell".to_owned()))
            }
            Fault::Panics => panic!("4111111111111111"),
            Fault::Held => {
                self.lifted().await;
                self.inner.append(records).await
            }
            Fault::WrittenHeld => {
                let positions = self.inner.append(records).await;
                self.lifted().await;
                positions
            }
        }
    }

    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from_offset: u64,
        max_records: usize,
        wait: Duration,
    ) -> Result<Vec<LoggedRecord>, LogError> {
        assert!(max_records > 1 || *self.fault.borrow() != Fault::Panics, "4111111111111111");
        self.inner.read(topic, partition, from_offset, max_records, wait).await
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        self.inner.bounds(topic, partition).await
    }

    async fn wait_for_any(
        &self,
        topic: &str,
        from: &[Position],
        wait: Duration,
    ) -> Result<Vec<u32>, LogError> {
        if topic == topics::CREATED && self.deaf.load(Ordering::SeqCst) {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        self.inner.wait_for_any(topic, from, wait).await
    }

    async fn writer(&self, name: &str) -> Result<Box<dyn Writer>, LogError> {
        self.inner.writer(name).await
    }

    async fn join(&self, group: &str, parts: u32) -> Result<Box<dyn Membership>, LogError> {
        self.inner.join(group, parts).await
    }

    async fn commit(&self, group: &str, topic: &str, partition: u32, offset: u64) -> Result<(), LogError> {
        self.inner.commit(group, topic, partition, offset).await
    }

    async fn committed(&self, group: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        self.inner.committed(group, topic, partition).await
    }
}
