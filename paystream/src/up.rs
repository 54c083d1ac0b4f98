//! `paystream up`: every stage in one process.

mod banner;
mod stages;

use anyhow::{Context as _, anyhow};
use gateway::{ApiKeys, Scope};
use runtime::Service;
use runtime::signals::Hangups;
use runtime::trace::Traces;
use tokio_util::sync::CancellationToken;

use self::banner::Banner;
use self::stages::Stages;
use crate::cli::{Global, UpArgs};
use crate::config::{self, Config};
use crate::data_dir::WHOLE;
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::host::{self, Host, Reloader};
use crate::{dlq, output, tail};

/// Whose transactions are those sent with the key of the first start.
const TEST_MERCHANT: &str = "test";

pub(crate) fn run(global: &Global, args: UpArgs) -> Outcome {
    let mut config = config::load(global.config.as_deref())?.value;
    apply(args, &mut config).or_usage()?;
    host::run(global, &config, WHOLE, async |traces| up(&config, traces).await)
}

/// The command line goes before the configuration.
fn apply(args: UpArgs, config: &mut Config) -> anyhow::Result<()> {
    if let Some(dir) = args.data_dir {
        config.server.data_dir = dir;
    }
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    if args.demo || args.no_demo {
        config.demo.enabled = args.demo;
    }
    if let Some(rate) = args.demo_rate {
        if !(0.001..=10_000.0).contains(&rate) {
            return Err(anyhow!("--demo-rate {rate}: give 0.001 to 10000 transactions per second"));
        }
        config.demo.rate_per_s = rate;
    }
    Ok(())
}

/// Starts the stages in the order data flows, serves until asked to stop, and stops them in that order.
async fn up(config: &Config, traces: &Traces) -> Outcome {
    let host = Host::open(config, WHOLE, traces).await?;
    // From here on SIGHUP does not end the process.
    let hangups = Hangups::listen().context("listening for SIGHUP")?;
    let keys = ApiKeys::load(&host.dir.api_keys_or(&config.gateway.api_keys_file)).or_usage()?;
    host::admit(&keys, &host.listen, config)?;
    host.readiness.set_not_ready("gateway", "catching up with the log");
    let stages = Stages::start(config, keys.clone(), &host.dir, &host.listen, &host.registry).await?;
    let reloader = Reloader {
        scoring: config.scoring.clone(),
        rulesets: stages.rulesets(),
        lists: Some(stages.lists()),
    };
    let (stop, dir) = (host.stop.clone(), host.dir.clone());
    let operators = reloader
        .router()
        .merge(tail::router(stages.log(), stages.guard(), stop.clone()))
        .merge(dlq::router(stages.log(), stages.guard()));
    reloader.heed(hangups, stop.clone());
    let router = stages.router(host.listen.is_loopback());
    let mut serving = host.serve(config, router, operators)?;
    let ready = tokio::select! {
        ready = stages.ready() => ready,
        () = stop.cancelled() => false,
    };
    let ruleset = stages.ruleset_summary();
    if ready {
        serving.set_ready("gateway");
        let first_key = first_key(&keys)?;
        serving.announce()?;
        let banner = Banner { config, dir: &dir, urls: &serving.urls, ruleset: &ruleset, first_key };
        if let Err(error) = output::print(&banner.to_string()) {
            tracing::warn!("{error:#}: serving all the same");
        }
        tracing::info!(url = serving.urls.api, data_dir = %dir.path().display(), "paystream is up");
        if config.demo.enabled {
            serving.first.insert(0, demo(serving.urls.api.clone(), config.demo.rate_per_s));
        }
    }
    serving.until_stopped(stages.into_services()).await
}

/// A key to begin with, when there has never been one. Made only once it can be shown.
fn first_key(keys: &ApiKeys) -> Result<Option<String>, Failure> {
    if !keys.list().is_empty() {
        return Ok(None);
    }
    let merchant = TEST_MERCHANT.parse().expect("`test` is a merchant id");
    Ok(Some(keys.create(&merchant, false, &Scope::USUAL).or_usage()?))
}

/// Made-up traffic, sent over HTTP as anyone else's.
fn demo(url: String, rate_per_s: f64) -> Service {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let task = tokio::spawn(async move { ::loadtest::run_demo(&url, rate_per_s, token, None).await });
    Service { name: "demo", stop, task }
}
