//! `paystream config check|print|default`.

use anyhow::Context as _;

use crate::cli::{ConfigCommand, Global};
use crate::config::{self, DEFAULTS, SECRETS};
use crate::exit::{OrUsage as _, Outcome};
use crate::output;

pub(crate) fn run(global: &Global, command: &ConfigCommand) -> Outcome {
    match command {
        ConfigCommand::Default => output::print(DEFAULTS)?,
        ConfigCommand::Check => {
            let loaded = config::load(global.config.as_deref())?;
            alerter::Routes::load(&loaded.value.alerter).or_usage()?;
            let ruleset = loaded.value.scoring.ruleset().or_usage()?;
            output::print_line(&format!(
                "The configuration is valid: {} features, {} rules ({}).",
                ruleset.feature_names().len(),
                ruleset.rule_ids().len(),
                ruleset.hash()
            ))?;
        }
        ConfigCommand::Print { json } => {
            let table = config::load(global.config.as_deref())?.redacted(&SECRETS);
            if *json {
                output::print_json(&table)?;
            } else {
                output::print(&toml::to_string(&table).context("writing the configuration as TOML")?)?;
            }
        }
    }
    Ok(())
}
