//! Starting and stopping the warehouse with its page.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::Context as _;
use eventlog::EventLog;
use runtime::Service;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::config::WarehouseConfig;
use crate::ingest::{Ingest, Writer};
use crate::live::{Live, now_ms};
use crate::metrics::Metrics;
use crate::parquet::Pacer;
use crate::reader::Reader;
use crate::stream::Clients;
use crate::warehouse::Warehouse;

/// A second is sent to the page this long after it is over, when its decisions have arrived.
const TICK_DELAY_MS: i64 = 300;

/// The running warehouse, its query API and the page.
#[derive(Debug)]
pub struct Analytics {
    /// Its task and how to stop it.
    pub service: Service,
    warehouse: Arc<Warehouse>,
    router: axum::Router,
}

impl Analytics {
    /// Opens the warehouse in `dir` and starts to keep it up to date. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// When the warehouse cannot be opened.
    pub fn start(
        config: WarehouseConfig,
        log: Arc<dyn EventLog>,
        dir: &Path,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::new(registry).context("registering the warehouse's metrics")?;
        let warehouse = Arc::new(Warehouse::open(dir, &config, metrics.clone())?);
        let live = Arc::new(Live::new(now_ms()));
        let stop = CancellationToken::new();
        let clients = Arc::new(Clients::new(config.stream_max_clients, metrics.clone()));
        let router = api::router(Arc::clone(&warehouse), Arc::clone(&live), clients, stop.child_token());
        let threads =
            Threads { config, log, warehouse: Arc::clone(&warehouse), live: Arc::clone(&live), metrics };
        let task = tokio::spawn(run(threads, live, stop.clone()));
        Ok(Self { service: Service { name: "warehouse", stop, task }, warehouse, router })
    }

    /// The page at `/`, the dashboard's API and the query API. Without authorisation: the caller adds it.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }

    /// The warehouse.
    #[must_use]
    pub fn warehouse(&self) -> Arc<Warehouse> {
        Arc::clone(&self.warehouse)
    }
}

struct Threads {
    config: WarehouseConfig,
    log: Arc<dyn EventLog>,
    warehouse: Arc<Warehouse>,
    live: Arc<Live>,
    metrics: Metrics,
}

/// Runs the two threads and the page's clock until the threads have ended.
async fn run(threads: Threads, live: Arc<Live>, stop: CancellationToken) -> anyhow::Result<()> {
    let store = &threads.warehouse.store;
    // Checked before the threads start, so that a wrong log is an error of the service.
    let positions = store.snapshot().positions.clone();
    let reader = Reader::open(Arc::clone(&threads.log), positions, Some(threads.metrics.clone())).await?;
    // Only what is in files is counted from the warehouse: the reader brings the rest.
    let snapshot = store.snapshot();
    tokio::select! {
        seeded = live.seed(&threads.warehouse.engine, &snapshot, now_ms()) => {
            if let Err(error) = seeded {
                let error = format!("{error:#}");
                tracing::error!(error, "the page starts without the state before the restart");
            }
        }
        () = stop.cancelled() => {}
    }
    drop(snapshot);
    let ended = threads.spawn(reader, stop.clone())?;
    let clock = async {
        loop {
            let now = now_ms();
            let to_next = 1_000 - (now - TICK_DELAY_MS).rem_euclid(1_000);
            tokio::time::sleep(Duration::from_millis(to_next.unsigned_abs())).await;
            live.tick(now_ms());
        }
    };
    let result: anyhow::Result<()> = tokio::select! {
        ended = ended => ended.context("a thread of the warehouse ended early"),
        () = clock => unreachable!("the clock does not stop"),
    };
    result
}

impl Threads {
    /// Starts the reading and the writing thread. What is returned is told when both have ended.
    fn spawn(self, reader: Reader, stop: CancellationToken) -> anyhow::Result<oneshot::Receiver<()>> {
        let (wake, woken) = sync_channel(1);
        let (done, ended) = oneshot::channel();
        let pacer = Arc::new(Pacer::default());
        let store = Arc::clone(&self.warehouse.store);
        let writer = Writer {
            store: Arc::clone(&store),
            metrics: self.metrics.clone(),
            config: self.config.clone(),
            pacer: Arc::clone(&pacer),
            wake: woken,
        };
        let writer = std::thread::Builder::new()
            .name("warehouse-write".to_owned())
            .spawn(move || {
                runtime::background::yield_to_answers();
                writer.run();
            })
            .context("starting the warehouse's writing thread")?;
        let hurry = stop.clone();
        tokio::spawn(async move {
            hurry.cancelled().await;
            pacer.hurry();
        });
        let ingest = Ingest {
            reader,
            store,
            live: self.live,
            metrics: self.metrics,
            config: self.config,
            stop,
            writer: wake,
        };
        let handle = tokio::runtime::Handle::current();
        std::thread::Builder::new()
            .name("warehouse-read".to_owned())
            .spawn(move || {
                runtime::background::yield_to_answers();
                // Dropping the reader's end tells the writer to flush a last time and to end.
                handle.block_on(ingest.run());
                if writer.join().is_ok() {
                    let _ = done.send(());
                }
            })
            .context("starting the warehouse's reading thread")?;
        Ok(ended)
    }
}
