//! Which system a question goes to: one that runs, over HTTP, or the files of one that does not.

use std::path::PathBuf;

use anyhow::anyhow;

use crate::cli::{Global, SourceArgs};
use crate::client::Client;
use crate::config::{self, Config};
use crate::data_dir::{DataDir, Held, Holder, WHOLE};
use crate::exit::{Failure, OrUsage as _};

/// Where the answer is.
#[derive(Debug)]
pub(crate) enum Source {
    /// At a running system.
    Running(Client),
    /// In the data directory of a stopped one, which stays stopped until this is dropped.
    Stopped(Stopped),
}

/// Where a question about everything is answered.
#[derive(Debug)]
pub(crate) enum Anywhere {
    /// By one process, or its files.
    Whole(Source),
    /// On the components of the distributed system: ClickHouse, and Kafka.
    Distributed(Box<Config>),
}

/// A stopped system.
#[derive(Debug)]
pub(crate) struct Stopped {
    pub(crate) dir: DataDir,
    pub(crate) config: Box<Config>,
    _held: Held,
}

/// The variable that names a running system when the command line names none.
const URL_VARIABLE: &str = "PAYSTREAM_URL";

/// The same, or the distributed system: `--clickhouse-url`, or, when nothing else is named, `clickhouse.url` of
/// the configuration.
pub(crate) fn resolve_anywhere(
    global: &Global,
    args: &SourceArgs,
    clickhouse_url: Option<&str>,
) -> Result<Anywhere, Failure> {
    if args.url.is_none() && args.data_dir.is_none() {
        let mut config = config::load(global.config.as_deref())?.value;
        if let Some(clickhouse) = crate::warehouse::configured(global, clickhouse_url)? {
            config.clickhouse = clickhouse;
            return Ok(Anywhere::Distributed(Box::new(config)));
        }
    }
    resolve(global, args).map(Anywhere::Whole)
}

/// The system that was asked for: `--url`, or `--data-dir`, or `PAYSTREAM_URL`, or the configured data
/// directory. A directory in use is asked through the process that uses it.
pub(crate) fn resolve(global: &Global, args: &SourceArgs) -> Result<Source, Failure> {
    resolve_by(global, args, |holder| Ok(holder.url))
}

/// As [`resolve`], for what is asked by the operators' routes: they are beside `/metrics`.
pub(crate) fn resolve_operators(global: &Global, args: &SourceArgs) -> Result<Source, Failure> {
    resolve_by(global, args, |holder| match holder {
        Holder { metrics_url: Some(url), .. } => Ok(Some(url.trim_end_matches("/metrics").to_owned())),
        Holder { url: None, .. } => Ok(None),
        Holder { url: Some(url), .. } => Err(anyhow!(
            "the system at {url} has no address for operators: set server.admin_listen, for example to \
             127.0.0.1:9090, and start it again"
        )),
    })
}

fn resolve_by(
    global: &Global,
    args: &SourceArgs,
    url_of: impl FnOnce(Holder) -> anyhow::Result<Option<String>>,
) -> Result<Source, Failure> {
    let from_environment = || std::env::var(URL_VARIABLE).ok().filter(|url| !url.is_empty());
    let url = args.url.clone().or_else(|| if args.data_dir.is_none() { from_environment() } else { None });
    if let Some(url) = url {
        return Ok(Source::Running(Client::new(&url, args.api_key.clone()).or_usage()?));
    }
    let config = config::load(global.config.as_deref())?.value;
    let dir = DataDir::new(args.data_dir.clone().unwrap_or_else(|| PathBuf::from(&config.server.data_dir)));
    dir.must_exist().or_usage()?;
    if let Some(url) = dir.in_use_by().map(url_of).transpose().or_usage()?.flatten() {
        return Ok(Source::Running(Client::new(&url, args.api_key.clone()).or_usage()?));
    }
    let held = dir.hold(WHOLE).or_usage()?;
    Ok(Source::Stopped(Stopped { dir, config: Box::new(config), _held: held }))
}
