//! What whoever runs the system can ask of it: its health, its log, its dead letters.

use clap::{Args, Subcommand};

use super::SourceArgs;

pub(crate) const DOCTOR_HELP: &str = "\
Checks what this configuration needs: itself, its folders, this machine, the running system if there is
one, and the servers it names. Exit status 1 when a check fails; a warning alone is status 0.

Examples:
  paystream doctor                           the system that ./paystream.toml describes
  paystream doctor --json | jq '.[] | select(.status != \"ok\")'";

#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The data directory to look at [default: the configured one]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<std::path::PathBuf>,
    /// Print an array of checks as JSON
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) const TAIL_HELP: &str = "\
TOPIC is created, decided, labelled, lists or alerts, with .dlq behind it for its dead letters, or a full
name. Follows until Ctrl-C (status 130) or --limit; the log of a stopped system ends where it ends.

Card tokens are shortened, e-mail addresses, telephone numbers and IP addresses masked. --unmasked shows
them: from a running system with an API key of the scope analytics, as `paystream query` would; from a
stopped one, or from Kafka, to whoever may read it. Card numbers are not in the log, and what looks like
one is masked always.

PATH is the way to a field, with dots; where there is an array, any of its elements counts. Several
filters must all hold. VALUE is compared with the value itself, before it is masked.

Examples:
  paystream tail decided
  paystream tail decided --filter data.decision.outcome=decline --filter data.transaction.merchant_id=shop
  paystream tail alerts --from start --limit 100 --json | jq .value.data.severity
  paystream tail created.dlq --from start --no-follow --headers";

#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// The topic
    pub(crate) topic: String,
    /// Where to begin: start, end, or an offset [default: end; start where nothing is followed]
    #[arg(long, value_name = "WHERE", value_parser = crate::tail::From::parse)]
    pub(crate) from: Option<crate::tail::From>,
    /// Only this partition
    #[arg(long, value_name = "N")]
    pub(crate) partition: Option<u32>,
    /// End after so many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// End where the log ends now
    #[arg(long)]
    pub(crate) no_follow: bool,
    /// Only records in which PATH holds VALUE; may be given several times
    #[arg(long = "filter", value_name = "PATH=VALUE", value_parser = crate::tail::Filter::parse)]
    pub(crate) filters: Vec<crate::tail::Filter>,
    /// Show personal data as it is
    #[arg(long)]
    pub(crate) unmasked: bool,
    /// Show the headers, too
    #[arg(long)]
    pub(crate) headers: bool,
    /// Print each record as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
}

pub(crate) const DLQ_HELP: &str = "\
A dead letter is a record that a stage could not read, with the reason and the place it came from in its
headers. It is open until it was retried or purged: the position of the group `dlq` in the dead-letter
topic says how far that is. TOPIC is created, decided, labelled, lists or alerts, or a full name.

Examples:
  paystream dlq list
  paystream dlq show created --limit 3
  paystream dlq retry created                               what reads it was upgraded
  paystream dlq retry created --pipe 'jq -c .v=1' --dry-run     the records themselves need a change
  paystream dlq purge created --limit 1 --yes               give up the oldest";

#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// The open letters of each dead-letter topic, and why they are there
    List {
        #[command(flatten)]
        source: SourceArgs,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Letters, whole
    #[command(after_help = "Example:\n  paystream dlq show created --partition 2 --offset 17")]
    Show(DlqShowArgs),
    /// Append open letters to the topic they came from, oldest first, once
    #[command(after_help = DLQ_RETRY_HELP)]
    Retry(DlqRetryArgs),
    /// Count open letters as dealt with, without appending them anywhere
    #[command(
        after_help = "They stay in the topic until retention removes them.\n\nExample:\n  paystream dlq purge created --limit 1 --yes"
    )]
    Purge(DlqPurgeArgs),
}

#[derive(Debug, Args)]
pub(crate) struct DlqShowArgs {
    /// The topic
    pub(crate) topic: String,
    /// How many of the open letters, oldest first
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) limit: u64,
    /// The letter at this place, open or not
    #[arg(long, value_name = "P", requires = "offset")]
    pub(crate) partition: Option<u32>,
    /// The letter at this place, open or not
    #[arg(long, value_name = "O", requires = "partition")]
    pub(crate) offset: Option<u64>,
    /// Show personal data as it is; see `paystream tail --help`
    #[arg(long)]
    pub(crate) unmasked: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Print each letter as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

const DLQ_RETRY_HELP: &str = "\
Stops at the end as of the start: a letter that fails again is a new letter, for another time. A letter
that two stages wrote is retried once. COMMAND runs in a shell for each letter, gets the value on standard
input and says the new value on standard output; when it fails, or says nothing, the retry ends there, with
the letters before it done. With --pipe a running system asks for an API key of the scope analytics, as
the letters are read in full. The record gets the headers retry-of (the letter's topic/partition/offset)
and attempt. Ended by a signal, it is carried on by the same command.

Examples:
  paystream dlq retry labelled --limit 10
  paystream dlq retry created --pipe \"sed 's/\\\"v\\\":2/\\\"v\\\":1/'\" --yes --json";

#[derive(Debug, Args)]
pub(crate) struct DlqRetryArgs {
    /// The topic
    pub(crate) topic: String,
    /// At most so many letters
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// A command that mends a value: standard input to standard output
    #[arg(long, value_name = "COMMAND")]
    pub(crate) pipe: Option<String>,
    /// Say what would be appended, and append nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DlqPurgeArgs {
    /// The topic
    pub(crate) topic: String,
    /// At most so many letters, oldest first
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// Do not ask; has to be given where there is nobody to ask
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
