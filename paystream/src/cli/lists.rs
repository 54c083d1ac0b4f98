//! What can be asked of lists.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::SourceArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum ListsCommand {
    /// The lists there are, and what their values are
    Show {
        #[command(flatten)]
        source: SourceArgs,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Put entries on a list
    #[command(after_help = LISTS_ADD_HELP)]
    Add {
        #[command(flatten)]
        entries: EntriesArgs,
        /// When the entries without a time of their own expire, such as 2027-01-31T00:00:00Z [default: never]
        #[arg(long, value_name = "TIME")]
        expires_at: Option<String>,
    },
    /// Take entries off a list
    #[command(
        after_help = "Exit status 1 when an entry was refused.\n\nExample:\n  paystream lists remove block_ip 203.0.113.9"
    )]
    Remove {
        #[command(flatten)]
        entries: EntriesArgs,
    },
}

const LISTS_ADD_HELP: &str = "\
A file has one value a line, or CSV of value,expires_at; lines that are empty or begin with # are passed over.
Card numbers are taken from a file only, and become tokens in the gateway. What is there already stays there,
so an import that was cut off is simply run again. Exit status 1 when an entry was refused.

Examples:
  paystream lists add block_ip 203.0.113.0/24 --expires-at 2027-01-31T00:00:00Z --note botnet
  paystream lists add block_card --file stolen.csv --json
  zcat ips.gz | paystream lists add block_ip --file - --all-merchants --api-key sk_live_…";

/// Entries of a list, and the system they are for.
#[derive(Debug, Args)]
pub(crate) struct EntriesArgs {
    /// The list, as `lists show` names it
    pub(crate) list: String,
    /// Values: card tokens, BINs, addresses and networks, …
    #[arg(value_name = "VALUE")]
    pub(crate) values: Vec<String>,
    /// A file of values instead; `-` is standard input
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Why, for people: at most 500 characters
    #[arg(long, value_name = "TEXT")]
    pub(crate) note: Option<String>,
    /// For the transactions of all merchants: needs a live key with the scope lists:all
    #[arg(long)]
    pub(crate) all_merchants: bool,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// Print the result as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
