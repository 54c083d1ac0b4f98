//! `paystream alerter check-config`: which route an alert takes.

use std::str::FromStr;

use alerter::Routes;
use anyhow::{Context as _, anyhow};
use events::{Alert, AmountMinor, Severity};
use serde_json::json;

use crate::cli::{AlerterCommand, Global, SampleAlert};
use crate::config;
use crate::exit::{OrUsage as _, Outcome};
use crate::output;

pub(crate) fn run(global: &Global, command: &AlerterCommand) -> Outcome {
    let AlerterCommand::CheckConfig(args) = command;
    let config = config::load(global.config.as_deref())?.value.alerter;
    let routes = Routes::load(&config).or_usage()?;
    let alert = sample(args).or_usage()?;
    let explained = routes.explain(&alert);
    if args.json {
        let lines: Vec<&str> = explained.lines().collect();
        return Ok(output::print_json(&json!({ "alert": alert, "explanation": lines }))?);
    }
    let money = format!("{} {} (minor units)", alert.amount_minor.get(), alert.currency);
    output::print(&format!(
        "The routes are valid. An alert of severity {}, merchant {}, {money}, rule {}:\n{explained}",
        alert.severity, alert.merchant_id, alert.reasons[0].rule
    ))?;
    Ok(())
}

/// The made-up alert, changed as asked for.
fn sample(args: &SampleAlert) -> anyhow::Result<Alert> {
    let mut alert = alerter::samples::alert(1);
    if let Some(text) = &args.severity {
        alert.severity = severity(text)?;
    }
    if let Some(merchant) = &args.merchant {
        alert.merchant_id = merchant.clone();
    }
    if let Some(rule) = &args.rule {
        alert.reasons[0].rule = rule.as_str().into();
    }
    if let Some(minor) = args.amount_minor {
        alert.amount_minor =
            AmountMinor::try_from(minor).map_err(|e| anyhow!("--amount-minor {minor}: {e}"))?;
    }
    if let Some(code) = &args.currency {
        alert.currency = FromStr::from_str(code).with_context(|| format!("--currency {code}"))?;
    }
    alert.livemode = !args.test;
    Ok(alert)
}

fn severity(text: &str) -> anyhow::Result<Severity> {
    serde_json::from_value(json!(text))
        .map_err(|_| anyhow!("--severity {text}: write low, medium, high or critical"))
}
