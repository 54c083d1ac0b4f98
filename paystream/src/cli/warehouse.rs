//! Arguments of `paystream warehouse`.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum WarehouseCommand {
    /// Make the database if it is missing, and apply the migrations that are not applied yet
    #[command(
        after_help = "Safe to run again, and by two at once. Refuses when a migration was changed after it was applied.\n\nExample:\n  PAYSTREAM__CLICKHOUSE__URL=http://127.0.0.1:8123 paystream warehouse migrate"
    )]
    Migrate(WarehouseArgs),
    /// Show which migrations are applied
    #[command(
        after_help = "Exit status 1 when one is not applied, or was changed after it was.\n\nExample:\n  paystream warehouse status --json"
    )]
    Status(WarehouseArgs),
}

#[derive(Debug, Args)]
pub(crate) struct WarehouseArgs {
    /// The ClickHouse server in place of the configured one
    #[arg(long, value_name = "URL")]
    pub(crate) clickhouse_url: Option<String>,
    /// Print the result as JSON
    #[arg(long)]
    pub(crate) json: bool,
}
