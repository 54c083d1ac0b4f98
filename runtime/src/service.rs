//! A running service, and stopping several of them in order.

use std::any::Any;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// What a service gets to stop in even when those before it used up the deadline, so that the log, which
/// comes last, is still closed.
const LAST_GRACE: Duration = Duration::from_millis(250);

/// A service that has started: its task, and the token that asks it to stop.
///
/// Once `stop` is cancelled the task finishes what it has accepted and ends. A task that ends before
/// it was asked to is a failure of the whole process.
#[derive(Debug)]
pub struct Service {
    /// Its name in logs and in the readiness answer.
    pub name: &'static str,
    /// Cancelled to ask the service to stop.
    pub stop: CancellationToken,
    /// Ends when the service has stopped.
    pub task: JoinHandle<anyhow::Result<()>>,
}

/// Runs services, given in the order they are to be stopped, until `stop` is cancelled or one of them
/// ends by itself; then stops the (other) ones in that order within `deadline`.
///
/// # Errors
/// The first failure: a service that ended by itself, even without an error; one that panicked or
/// failed while stopping; or the deadline.
pub async fn run_until(
    mut services: Vec<Service>,
    stop: CancellationToken,
    deadline: Duration,
) -> anyhow::Result<()> {
    let first = tokio::select! {
        () = stop.cancelled() => Ok(()),
        (index, ended) = first_end(&mut services) => {
            let name = services.remove(index).name;
            let failure = match outcome(name, ended) {
                Ok(()) => anyhow!("{name} ended although nobody asked it to"),
                Err(failure) => failure,
            };
            tracing::error!(service = name, "{failure:#}: stopping everything else");
            Err(failure)
        }
    };
    let stopped = stop_in_order(services, deadline).await;
    first.and(stopped)
}

/// Stops services one after the other, each once the one before it has ended, all within `deadline`.
/// At the deadline what still runs is aborted; the ones after it get a quarter of a second each.
///
/// # Errors
/// The first service that failed, panicked or did not end in time; the ones after it are stopped all
/// the same.
pub async fn stop_in_order(services: Vec<Service>, deadline: Duration) -> anyhow::Result<()> {
    let until = Instant::now() + deadline;
    let mut first_failure = Ok(());
    for Service { name, stop, mut task } in services {
        let began = Instant::now();
        stop.cancel();
        let stopped = match tokio::time::timeout_at(until.max(began + LAST_GRACE), &mut task).await {
            Ok(ended) => outcome(name, ended).context("while stopping"),
            Err(_) => {
                task.abort();
                Err(anyhow!("{name} did not stop within the shutdown deadline of {deadline:?}: aborted"))
            }
        };
        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &stopped {
            Ok(()) => tracing::info!(service = name, elapsed_ms, "stopped"),
            Err(failure) => tracing::error!(service = name, elapsed_ms, "{failure:#}"),
        }
        first_failure = first_failure.and(stopped);
    }
    first_failure
}

/// Waits until one of the services ends: its index, and how it ended.
async fn first_end(services: &mut [Service]) -> (usize, Result<anyhow::Result<()>, JoinError>) {
    poll_fn(|cx| {
        for (index, service) in services.iter_mut().enumerate() {
            if let Poll::Ready(ended) = Pin::new(&mut service.task).poll(cx) {
                return Poll::Ready((index, ended));
            }
        }
        Poll::Pending
    })
    .await
}

fn outcome(name: &str, ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    match ended {
        Ok(result) => result.with_context(|| format!("{name} failed")),
        Err(error) if error.is_panic() => {
            bail!("{name} panicked: {}", panic_message(&*error.into_panic()))
        }
        Err(_) => bail!("{name} was aborted"),
    }
}

/// What a panic said.
pub(crate) fn panic_message(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn service<F>(name: &'static str, body: impl FnOnce(CancellationToken) -> F) -> Service
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let stop = CancellationToken::new();
        Service { name, task: tokio::spawn(body(stop.clone())), stop }
    }

    #[tokio::test]
    async fn each_service_is_asked_to_stop_only_after_the_one_before_it_ended() {
        let order = Arc::new(Mutex::new(Vec::new()));
        let services = ["http", "gateway", "log"]
            .map(|name| {
                let order = Arc::clone(&order);
                service(name, move |stop| async move {
                    stop.cancelled().await;
                    order.lock().unwrap().push(format!("{name} asked"));
                    tokio::task::yield_now().await;
                    order.lock().unwrap().push(format!("{name} ended"));
                    Ok(())
                })
            })
            .into();
        stop_in_order(services, LONG).await.unwrap();
        assert_eq!(
            *order.lock().unwrap(),
            ["http asked", "http ended", "gateway asked", "gateway ended", "log asked", "log ended"]
        );
    }

    #[tokio::test]
    async fn a_service_that_does_not_stop_is_aborted_at_the_deadline_and_named() {
        let ran = CancellationToken::new();
        let last = ran.clone();
        let services = vec![
            service("stuck", |_| std::future::pending()),
            service("last", move |stop| async move {
                stop.cancelled().await;
                last.cancel();
                Ok(())
            }),
        ];
        let error = stop_in_order(services, Duration::from_millis(20)).await.unwrap_err();
        assert!(format!("{error:#}").contains("stuck did not stop within"), "{error:#}");
        // Asked to stop, though no time is left to wait for it.
        tokio::time::timeout(LONG, ran.cancelled()).await.unwrap();
    }

    #[tokio::test]
    async fn a_service_that_ends_by_itself_fails_the_process_and_stops_the_others() {
        let stopped = CancellationToken::new();
        let other = stopped.clone();
        let services = vec![
            service("gateway", move |stop| async move {
                stop.cancelled().await;
                other.cancel();
                Ok(())
            }),
            service("analyzer", |_| async { Ok(()) }),
        ];
        let error = run_until(services, CancellationToken::new(), LONG).await.unwrap_err();
        assert!(format!("{error:#}").contains("analyzer ended although nobody asked it to"), "{error:#}");
        assert!(stopped.is_cancelled());
    }

    #[tokio::test]
    async fn a_panic_in_a_service_fails_the_process_with_its_message() {
        let services = vec![service("analyzer", |_| async { panic!("row 7 is odd") })];
        let error = run_until(services, CancellationToken::new(), LONG).await.unwrap_err();
        assert!(format!("{error:#}").contains("analyzer panicked: row 7 is odd"), "{error:#}");
    }

    #[tokio::test]
    async fn an_error_while_stopping_is_reported_and_the_rest_is_stopped() {
        let services = vec![
            service("warehouse", |stop| async move {
                stop.cancelled().await;
                bail!("disk full")
            }),
            service("log", |stop| async move {
                stop.cancelled().await;
                Ok(())
            }),
        ];
        let stop = CancellationToken::new();
        stop.cancel();
        let error = run_until(services, stop, LONG).await.unwrap_err();
        assert!(format!("{error:#}").contains("warehouse failed: disk full"), "{error:#}");
    }

    #[tokio::test]
    async fn an_asked_for_stop_without_failures_is_no_error() {
        let stop = CancellationToken::new();
        let services = vec![service("log", |stop| async move {
            stop.cancelled().await;
            Ok(())
        })];
        stop.cancel();
        run_until(services, stop, LONG).await.unwrap();
    }
}
