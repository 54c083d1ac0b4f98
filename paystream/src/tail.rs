//! `paystream tail`: a topic's records as they come.

mod entry;
mod filter;
mod follow;
mod line;
mod route;

use anyhow::{Context as _, anyhow};
use tokio::sync::mpsc;

pub(crate) use self::entry::{Content, Entry, hex};
pub(crate) use self::filter::Filter;
pub(crate) use self::follow::From;
use self::follow::{Event, Gone, Request};
pub(crate) use self::line::{printable, time};
pub(crate) use self::route::router;
use crate::cli::{Global, TailArgs};
use crate::client::Client;
use crate::exit::{Failure, Outcome};
use crate::logs::{self, Logs, OpenLog};
use crate::mask::Mask;
use crate::output;

/// Records that wait to be printed or sent.
const WAITING_MAX: usize = 256;

pub(crate) fn run(global: &Global, args: &TailArgs) -> Outcome {
    let topic = logs::topic(&args.topic)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    let outcome = runtime.block_on(async {
        let stop = runtime::signals::listen().context("listening for signals")?;
        tokio::select! {
            done = tail(global, topic, args) => done,
            () = stop.cancelled() => Err(Failure::Interrupted),
        }
    });
    runtime.shutdown_background();
    outcome
}

async fn tail(global: &Global, topic: &'static str, args: &TailArgs) -> Outcome {
    let logs = logs::resolve(global, &args.source).await?;
    let live = match &logs {
        Logs::Running(_) => true,
        Logs::Open(open) => open.is_live(),
    };
    let follow = live && !args.no_follow;
    let request = Request {
        topic,
        partition: args.partition,
        from: args.from.unwrap_or(if follow { From::End } else { From::Start }),
        limit: args.limit,
        follow,
        filters: args.filters.clone(),
        mask: if args.unmasked { Mask::CardsOnly } else { Mask::Personal },
    };
    match logs {
        Logs::Running(client) => from_running(&client, &request, args).await,
        Logs::Open(open) => from_open(open, request, args).await,
    }
}

async fn from_running(client: &Client, request: &Request, args: &TailArgs) -> Outcome {
    let mut lines = client.follow(&route::path(request)).await?;
    let mut shown = 0;
    while let Some(event) = lines.next().await? {
        shown += print(event, args)?;
    }
    if request.follow && request.limit != Some(shown) {
        return Err(Failure::Failed(anyhow!("the system has stopped, or has no place for this any more")));
    }
    Ok(())
}

async fn from_open(open: OpenLog, request: Request, args: &TailArgs) -> Outcome {
    let (out, mut events) = mpsc::channel(WAITING_MAX);
    let log = open.log.clone();
    let following = tokio::spawn(async move { follow::follow(&*log, &request, out).await });
    let mut outcome = Ok(());
    while let Some(event) = events.recv().await {
        if let Err(failure) = print(event, args) {
            outcome = Err(failure);
            break;
        }
    }
    drop(events);
    following.await.context("following the log")?;
    open.close().await;
    outcome
}

/// Prints what came, and says how many records that were.
fn print(event: Event, args: &TailArgs) -> Result<u64, Failure> {
    match event {
        Event::Record(entry) if args.json => output::print_json(&entry)?,
        Event::Record(entry) => output::print_line(&line::line(&entry, args.headers))?,
        Event::Gone { gone: Gone { partition, from, to } } => {
            output::note(&format!(
                "partition {partition}: retention has removed the records from offset {from} up to {to}"
            ));
            return Ok(0);
        }
        Event::Failed { error } => return Err(Failure::Failed(anyhow!(error))),
    }
    Ok(1)
}
