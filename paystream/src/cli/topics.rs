//! Arguments of `paystream topics`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum TopicsCommand {
    /// Make topics that are missing, and set what differs; deletes nothing
    #[command(
        after_help = "Exit status 1 when something is left that it does not change: partitions of topics with\nrecords, replicas.\n\nExample:\n  PAYSTREAM__KAFKA__BROKERS=127.0.0.1:9092 paystream topics apply"
    )]
    Apply(TopicsArgs),
    /// Show what differs between the declared topics and those on Kafka
    #[command(
        after_help = "Exit status 1 when something differs.\n\nExample:\n  paystream topics diff --file topics.yaml --json"
    )]
    Diff(TopicsArgs),
    /// Print the declared topics: the file to begin one's own with
    #[command(after_help = "Example:\n  paystream topics print > topics.yaml")]
    Print(TopicsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TopicsArgs {
    /// The YAML file of topics in place of the built-in one
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
