//! The command line: what can be asked for. What is done is in the module of each command's name.

mod duration;
mod lists;
mod ops;
mod topics;
mod warehouse;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use fraud_analyzer::engine::Synthetic;
use gateway::Scope;

pub(crate) use self::lists::{EntriesArgs, ListsCommand};
pub(crate) use self::ops::{DlqCommand, DlqPurgeArgs, DlqRetryArgs, DlqShowArgs, DoctorArgs, TailArgs};
pub(crate) use self::topics::{TopicsArgs, TopicsCommand};
pub(crate) use self::warehouse::{WarehouseArgs, WarehouseCommand};
use crate::exit::Outcome;
use crate::output;

const ABOUT: &str = "Card transactions in; decisions, alerts and a live page out.";

/// Rows scored at a time unless told otherwise: what they touch leaves room in the processor's cache.
const BATCH_ROWS: usize = 4_096;

const AFTER_HELP: &str = "\
Examples:
  paystream up --demo                        start everything, with made-up traffic to look at
  paystream query \"SELECT outcome, count(*) FROM decisions GROUP BY outcome\"
  paystream loadtest --url http://127.0.0.1:8080 --rate 3000 --duration 30s
  paystream reconcile --json                 is every accepted transaction decided and stored once?
  paystream doctor                           is everything there that the system needs?
  paystream config default > paystream.toml  start a configuration file

Exit status:
  0    done
  1    tried and failed, or a check found something wrong
  2    wrong usage, wrong configuration, or the surroundings do not allow to start
  130  interrupted by a signal

Environment:
  PAYSTREAM_CONFIG            the configuration file, as --config
  PAYSTREAM_URL               the running system to ask, as --url
  PAYSTREAM_API_KEY           the API key to ask it with, as --api-key
  PAYSTREAM__SECTION__KEY     sets section.key of the configuration
  PAYSTREAM__SECTION__KEY__FILE  the same, to what the file of this name holds
  RUST_LOG                    what is logged, before telemetry.level
  NO_COLOR                    no colour, whatever the terminal";

/// What was asked for.
#[derive(Debug, Parser)]
#[command(name = "paystream", version, about = ABOUT, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Configuration file [default: ./paystream.toml if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "PAYSTREAM_CONFIG", hide_env = true)]
    pub(crate) config: Option<PathBuf>,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub(crate) color: When,
}

/// When to colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    Auto,
    Always,
    Never,
}

impl From<When> for runtime::telemetry::Colour {
    fn from(when: When) -> Self {
        match when {
            When::Auto => Self::Auto,
            When::Always => Self::Always,
            When::Never => Self::Never,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything in one process: API, scoring, warehouse, alerts and the page
    #[command(after_help = UP_HELP)]
    Up(UpArgs),
    /// Serve the merchants' API, on Kafka
    #[command(after_help = SERVICE_HELP)]
    Gateway(ServiceArgs),
    /// Decide transactions, from Kafka to Kafka
    #[command(after_help = SERVICE_HELP)]
    FraudAnalyzer(ServiceArgs),
    /// Deliver alerts from Kafka; or try out where they go
    #[command(after_help = SERVICE_HELP, args_conflicts_with_subcommands = true)]
    Alerter(AlerterArgs),
    /// Fill ClickHouse from Kafka, and compare them continuously
    #[command(after_help = SERVICE_HELP)]
    Analytics(ServiceArgs),
    /// Ask the warehouse in SQL
    #[command(after_help = QUERY_HELP)]
    Query(QueryArgs),
    /// Compare what was accepted, logged, decided and stored, transaction by transaction
    #[command(after_help = RECONCILE_HELP)]
    Reconcile(ReconcileArgs),
    /// Score a Parquet or CSV file of transactions with the live scoring code
    #[command(after_help = REPLAY_HELP)]
    Replay(ReplayArgs),
    /// Send made-up card traffic at a fixed rate and measure the answers
    #[command(after_help = LOADTEST_HELP)]
    Loadtest(LoadtestArgs),
    /// Check what feature files make of transactions, and explain what they keep
    #[command(subcommand)]
    Features(FeaturesCommand),
    /// Measure parts of the system by themselves
    #[command(subcommand)]
    Bench(BenchCommand),
    /// Create, list and revoke API keys
    #[command(subcommand)]
    Keys(KeysCommand),
    /// See the lists of what is blocked or allowed, put entries on them and take them off
    #[command(subcommand)]
    Lists(ListsCommand),
    /// Make the topics on Kafka, or show what differs from what is declared
    #[command(subcommand)]
    Topics(TopicsCommand),
    /// Check everything that the system needs, and say what to do about what is missing
    #[command(after_help = ops::DOCTOR_HELP)]
    Doctor(DoctorArgs),
    /// Show a topic's records as they come
    #[command(after_help = ops::TAIL_HELP)]
    Tail(TailArgs),
    /// See the records that could not be read, and try them again or give them up
    #[command(subcommand, after_help = ops::DLQ_HELP)]
    Dlq(DlqCommand),
    /// Make the tables on ClickHouse, or show which migrations are applied
    #[command(subcommand)]
    Warehouse(WarehouseCommand),
    /// Check or print the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Ask a running system whether it can serve, for the health check of a container
    #[command(after_help = HEALTHCHECK_HELP)]
    Healthcheck(HealthcheckArgs),
    /// Print a script that completes paystream's arguments in a shell
    #[command(
        after_help = "Example:\n  paystream completions bash > ~/.local/share/bash-completion/completions/paystream"
    )]
    Completions {
        /// The shell
        shell: Shell,
    },
}

const HEALTHCHECK_HELP: &str = "\
Exit status 0 when GET /readyz answers 200, 1 otherwise.

Examples:
  paystream healthcheck                            where the configuration says that requests are served
  paystream healthcheck --url http://127.0.0.1:9090 --timeout 500ms";

#[derive(Debug, Args)]
pub(crate) struct HealthcheckArgs {
    /// The system to ask [default: server.admin_listen of the configuration, else server.listen]
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
}

const UP_HELP: &str = "\
Examples:
  paystream up                                     on http://127.0.0.1:8080, data in ./data
  paystream up --demo --demo-rate 200              with 200 made-up transactions a second
  paystream up --listen 0.0.0.0:8080               for others: needs an API key, see `paystream keys`

The first start makes an API key and shows it once. On a loopback address requests need none: they
belong to the test merchant. Where the system can be reached is also in DATA_DIR/paystream.lock, as JSON.

SIGINT or SIGTERM stops in order and ends with status 0; a second one ends at once with 130. SIGHUP, or
POST /-/reload, reads scoring.features_dir and scoring.rules_dir again, without a restart.";

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Where everything is kept [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address and port of the API and the page; port 0 takes a free one [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Send made-up traffic, so that there is something to look at
    #[arg(long, overrides_with = "no_demo")]
    pub(crate) demo: bool,
    /// Send none, whatever the configuration says
    #[arg(long, overrides_with = "demo")]
    pub(crate) no_demo: bool,
    /// Made-up transactions per second
    #[arg(long, value_name = "RATE")]
    pub(crate) demo_rate: Option<f64>,
}

const SERVICE_HELP: &str = "\
A part of the distributed system. All parts read the same configuration; what each needs:
  gateway         kafka.brokers, redis.url when there are several, and the same keys in each
  fraud-analyzer  kafka.brokers, analyzer.lanes, analyzer.checkpoint_url when there are several
  alerter         kafka.brokers, alerter.telegram.*
  analytics       kafka.brokers, clickhouse.url

Addresses when none is set: 127.0.0.1:8080, 8081, 8082 and 8083. Those of fraud-analyzer, alerter and analytics
also serve /metrics and are for the inside of a network.

Before the first start: paystream topics apply; paystream warehouse migrate.

Example:
  PAYSTREAM__KAFKA__BROKERS=127.0.0.1:9092 paystream gateway --data-dir /var/lib/paystream";

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    /// Where the process keeps what only it needs [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct AlerterArgs {
    #[command(flatten)]
    pub(crate) service: ServiceArgs,
    #[command(subcommand)]
    pub(crate) command: Option<AlerterCommand>,
}

/// Which system a question goes to.
#[derive(Debug, Clone, Args)]
pub(crate) struct SourceArgs {
    /// A running system, for example http://127.0.0.1:8080
    #[arg(long, value_name = "URL", conflicts_with = "data_dir")]
    pub(crate) url: Option<String>,
    /// The data directory of a stopped system; one in use is asked over HTTP [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The API key to ask a running system with
    #[arg(long, value_name = "KEY", env = "PAYSTREAM_API_KEY", hide_env_values = true, hide_env = true)]
    pub(crate) api_key: Option<String>,
}

const QUERY_HELP: &str = "\
Examples:
  paystream query \"SELECT * FROM transactions ORDER BY accepted_at DESC LIMIT 10\"
  paystream query --format csv < question.sql > answer.csv
  paystream query --json \"SELECT count(*) AS n FROM decisions\" | jq '.[0].n'
  paystream query --clickhouse-url http://127.0.0.1:8123 \"SELECT * FROM decisions_per_minute LIMIT 10\"

With clickhouse.url in the configuration, or --clickhouse-url, ClickHouse is asked, read-only and within the
limits of the section [clickhouse]; --url and --data-dir ask the embedded warehouse.";

#[derive(Debug, Args)]
pub(crate) struct QueryArgs {
    /// The SQL; read from standard input when absent or `-`
    pub(crate) sql: Option<String>,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Ask this ClickHouse server, for example http://127.0.0.1:8123
    #[arg(long, value_name = "URL", conflicts_with_all = ["url", "data_dir"])]
    pub(crate) clickhouse_url: Option<String>,
    /// How to print the answer
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub(crate) format: Format,
    /// The same as --format json
    #[arg(long, conflicts_with = "format")]
    pub(crate) json: bool,
}

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// RFC 4180, with a line of names
    Csv,
    /// An array of objects
    Json,
}

const RECONCILE_HELP: &str = "\
Exit status 1 when the counts disagree, or anything is missing or doubled.

Examples:
  paystream reconcile                        the system on ./data, running or not
  paystream reconcile --url http://127.0.0.1:8080 --json | jq .missing
  paystream reconcile --accepted ids.txt     Kafka and ClickHouse, as configured; the file is one that
                                             `paystream loadtest --accepted-out` wrote

With clickhouse.url in the configuration the log on Kafka and ClickHouse are compared, materialized views
included; without --accepted what the log's transactions.created holds counts as accepted.";

#[derive(Debug, Args)]
pub(crate) struct ReconcileArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Ids of accepted transactions, one a line, in place of the gateway's own list
    #[arg(long, value_name = "FILE", conflicts_with_all = ["url", "data_dir"])]
    pub(crate) accepted: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const REPLAY_HELP: &str = "\
A run that was cut off is carried on by the same command; --fresh starts over. The decision hash is
equal for equal decisions.

Example:
  paystream replay --input tx.parquet --mapping examples/handbook.yaml --output decisions.parquet";

#[derive(Debug, Args)]
pub(crate) struct ReplayArgs {
    /// The Parquet or CSV file, one transaction per row, oldest first
    #[arg(long, value_name = "FILE")]
    pub(crate) input: PathBuf,
    /// The YAML file that says which column is what
    #[arg(long, value_name = "FILE")]
    pub(crate) mapping: PathBuf,
    /// The Parquet file of decisions to write
    #[arg(long, value_name = "FILE")]
    pub(crate) output: PathBuf,
    /// Feature files in place of the configured ones
    #[arg(long, value_name = "DIR")]
    pub(crate) features_dir: Option<PathBuf>,
    /// Rule packs in place of the configured ones
    #[arg(long, value_name = "DIR")]
    pub(crate) rules_dir: Option<PathBuf>,
    /// Rows scored at a time; makes no difference to the decisions
    #[arg(long, value_name = "ROWS", default_value_t = BATCH_ROWS, value_parser = rows)]
    pub(crate) batch_rows: usize,
    /// Rows between checkpoints: what a run that was cut off does again at the most
    #[arg(long, value_name = "ROWS", default_value_t = 200_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) checkpoint_rows: u64,
    /// Start over even where an earlier run can be carried on
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const LOADTEST_HELP: &str = "\
Open loop: requests leave when they are due, however slow the answers are, and latency counts from then.
Exit status 1 when a request failed.

Examples:
  paystream loadtest --url http://127.0.0.1:8080 --rate 3000 --duration 30s --json
  paystream loadtest --malformed 1000              1,000 requests that have to be refused";

#[derive(Debug, Args)]
pub(crate) struct LoadtestArgs {
    /// The system to put under load
    #[arg(
        long,
        value_name = "URL",
        env = "PAYSTREAM_URL",
        hide_env = true,
        default_value = "http://127.0.0.1:8080"
    )]
    pub(crate) url: String,
    /// Requests per second
    #[arg(long, value_name = "RATE", default_value_t = 100.0)]
    pub(crate) rate: f64,
    /// How long requests are sent: 500ms, 30s, 5m, 1h
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    pub(crate) duration: Duration,
    /// Sent as `Authorization: Bearer`; a system on loopback needs none
    #[arg(long, value_name = "KEY", env = "PAYSTREAM_API_KEY", hide_env_values = true, hide_env = true)]
    pub(crate) api_key: Option<String>,
    /// The same seed makes the same traffic
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) seed: u64,
    /// What idempotency keys derive from [default: new at every run]
    #[arg(long, value_name = "TEXT")]
    pub(crate) run_id: Option<String>,
    /// Share of fraudulent payments, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.02)]
    pub(crate) fraud_share: f64,
    /// Requests under way at once
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub(crate) connections: usize,
    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse)]
    pub(crate) timeout: Duration,
    /// Equal distances between requests instead of random ones
    #[arg(long)]
    pub(crate) uniform: bool,
    /// Send what was not accepted again, with the same key: for trying out crashes
    #[arg(long)]
    pub(crate) retry: bool,
    /// Write the ids of all accepted transactions to a file, one a line
    #[arg(long, value_name = "FILE")]
    pub(crate) accepted_out: Option<PathBuf>,
    /// Send this many malformed requests instead, and check that each is refused by name of the field
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) malformed: Option<u64>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// A file of transactions.
#[derive(Debug, Args)]
pub(crate) struct FileArgs {
    /// The Parquet or CSV file, one transaction per row, oldest first
    #[arg(long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// The YAML file that says which column is what
    #[arg(long, value_name = "FILE", requires = "input")]
    pub(crate) mapping: Option<PathBuf>,
    /// Made-up events in place of a file: how many, of how many cards, over how many days
    #[arg(long, value_name = "EVENTS,CARDS,DAYS", conflicts_with = "input", value_parser = synthetic)]
    pub(crate) synthetic: Option<Synthetic>,
    /// Rows scored at a time; makes no difference to the result
    #[arg(long, value_name = "ROWS", default_value_t = BATCH_ROWS, value_parser = rows)]
    pub(crate) batch_rows: usize,
}

#[derive(Debug, Subcommand)]
pub(crate) enum FeaturesCommand {
    /// Compare every feature of every row with the same SQL in batch
    #[command(
        after_help = "Exit status 1 when a value differs.\n\nExample:\n  paystream features check --input tx.parquet --mapping examples/handbook.yaml --features examples/handbook/features"
    )]
    Check {
        #[command(flatten)]
        file: FileArgs,
        /// Feature files in place of the configured ones
        #[arg(long, value_name = "DIR")]
        features: Option<PathBuf>,
        /// Print the result as one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Say what each window of a feature file became: state, frame and bytes per key
    Explain {
        /// The feature file, or a directory of them
        #[arg(value_name = "FILE")]
        path: PathBuf,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Score events in the engine alone, on one thread: batches in, decisions out
    #[command(
        after_help = "Examples:\n  paystream bench engine --input tx.parquet --mapping examples/handbook.yaml --against datafusion\n  paystream bench engine --synthetic 20000000,2000000,60"
    )]
    Engine(BenchEngineArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BenchEngineArgs {
    #[command(flatten)]
    pub(crate) file: FileArgs,
    /// Feature files in place of the configured ones
    #[arg(long, value_name = "DIR")]
    pub(crate) features: Option<PathBuf>,
    /// Rule packs in place of the configured ones
    #[arg(long, value_name = "DIR")]
    pub(crate) rules: Option<PathBuf>,
    /// Threads that score; there is one at present
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=1))]
    pub(crate) threads: u8,
    /// Let stock DataFusion compute the same features in batch, for comparison
    #[arg(long, value_name = "ENGINE")]
    pub(crate) against: Option<Against>,
    /// Leave sealed segments in this directory, as the analyzer does; without it they stay in memory. Files
    /// of other runs in it are removed.
    #[arg(long, value_name = "DIR")]
    pub(crate) segments: Option<PathBuf>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

/// What the engine is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Against {
    /// The same SQL over all rows at once
    Datafusion,
}

fn synthetic(text: &str) -> Result<Synthetic, String> {
    let expected = || "expected EVENTS,CARDS,DAYS, for example 20000000,2000000,60".to_owned();
    let [events, cards, days] = text.split(',').collect::<Vec<_>>()[..] else { return Err(expected()) };
    let number = |text: &str| text.parse::<u64>().ok().filter(|&n| n > 0).ok_or_else(expected);
    let days = u32::try_from(number(days)?).map_err(|_| expected())?;
    Ok(Synthetic { events: number(events)?, cards: number(cards)?, days })
}

/// Whose keys.
#[derive(Debug, Args)]
pub(crate) struct KeysDir {
    /// The data directory the keys belong to [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make a key and show it, once; a running system knows it within a second
    #[command(
        after_help = "Examples:\n  paystream keys create --merchant shop_1\n  paystream keys create --merchant ops --scope analytics\n  paystream keys create --merchant shop_1 --live"
    )]
    Create {
        /// Whose transactions the key may touch
        #[arg(long, value_name = "ID", default_value = "test")]
        merchant: events::MerchantId,
        /// A key for real transactions instead of test ones
        #[arg(long)]
        live: bool,
        /// What the key is for; may be given several times: transactions:write, transactions:read, lists,
        /// analytics, and lists:all, to change lists for all merchants [default: all but lists:all]
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<Scope>,
        #[command(flatten)]
        dir: KeysDir,
    },
    /// List the keys, without the keys themselves
    List {
        #[command(flatten)]
        dir: KeysDir,
    },
    /// Refuse a key from now on
    Revoke {
        /// Its id, as `keys list` shows it
        id: String,
        #[command(flatten)]
        dir: KeysDir,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say everything that is wrong with the configuration, or that nothing is
    Check,
    /// Print the configuration in force, secrets hidden
    Print {
        /// As JSON instead of TOML
        #[arg(long)]
        json: bool,
    },
    /// Print the commented file of defaults
    Default,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AlerterCommand {
    /// Check the routes and explain which one an alert takes
    #[command(
        after_help = "Example:\n  paystream alerter check-config --severity critical --merchant shop_1 --amount-minor 10050"
    )]
    CheckConfig(SampleAlert),
}

/// The alert to explain the routes with.
#[derive(Debug, Args)]
pub(crate) struct SampleAlert {
    /// Its severity: low, medium, high or critical
    #[arg(long, value_name = "SEVERITY")]
    pub(crate) severity: Option<String>,
    /// Its merchant
    #[arg(long, value_name = "ID")]
    pub(crate) merchant: Option<events::MerchantId>,
    /// The rule that raised it
    #[arg(long, value_name = "ID")]
    pub(crate) rule: Option<String>,
    /// Its amount, in minor units of the currency
    #[arg(long, value_name = "MINOR")]
    pub(crate) amount_minor: Option<i64>,
    /// Its currency
    #[arg(long, value_name = "CODE")]
    pub(crate) currency: Option<String>,
    /// Raised under a test key
    #[arg(long)]
    pub(crate) test: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

fn rows(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(rows @ 1..=1_000_000) => Ok(rows),
        _ => Err("give 1 to 1000000".to_owned()),
    }
}

/// Prints the completion script.
pub(crate) fn completions(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "paystream", &mut script);
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_last_of_demo_and_no_demo_holds() {
        let demo = |args: &[&str]| match Cli::try_parse_from([&["paystream", "up"], args].concat()) {
            Ok(Cli { command: Command::Up(args), .. }) => (args.demo, args.no_demo),
            other => panic!("{other:?}"),
        };
        assert_eq!(demo(&["--demo", "--no-demo"]), (false, true));
        assert_eq!(demo(&["--no-demo", "--demo"]), (true, false));
        assert_eq!(demo(&[]), (false, false));
    }

    #[test]
    fn global_options_are_taken_after_the_command_too() {
        let cli = Cli::try_parse_from(["paystream", "config", "check", "--config", "x.toml"]).unwrap();
        assert_eq!(cli.global.config.unwrap(), PathBuf::from("x.toml"));
    }
}
