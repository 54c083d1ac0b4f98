//! `paystream keys create|list|revoke`.

use std::path::PathBuf;

use comfy_table::Table;
use events::MerchantId;
use gateway::{ApiKeys, Scope};
use serde_json::json;

use crate::cli::{Global, KeysCommand, KeysDir};
use crate::config;
use crate::data_dir::DataDir;
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::output;

pub(crate) fn run(global: &Global, command: KeysCommand) -> Outcome {
    match command {
        KeysCommand::Create { merchant, live, scopes, dir } => create(global, &merchant, live, scopes, &dir),
        KeysCommand::List { dir } => list(&open(global, &dir)?, dir.json),
        KeysCommand::Revoke { id, dir } => {
            open(global, &dir)?.revoke(&id).or_usage()?;
            if dir.json {
                return Ok(output::print_json(&json!({"id": id, "revoked": true}))?);
            }
            Ok(output::print_line(&format!("{id} is revoked: requests with it are refused from now on."))?)
        }
    }
}

fn create(global: &Global, merchant: &MerchantId, live: bool, scopes: Vec<Scope>, dir: &KeysDir) -> Outcome {
    let scopes = if scopes.is_empty() { Scope::USUAL.to_vec() } else { scopes };
    let key = open(global, dir)?.create(merchant, live, &scopes).or_usage()?;
    if dir.json {
        return Ok(output::print_json(&json!({"key": key, "merchant": merchant, "scopes": scopes}))?);
    }
    output::note("This is the only time the key is shown:");
    Ok(output::print_line(&key)?)
}

fn list(keys: &ApiKeys, json: bool) -> Outcome {
    let keys = keys.list();
    if json {
        // The hash is of no use to anyone but the file.
        let keys: Vec<_> = keys
            .iter()
            .map(|key| {
                json!({
                    "id": key.id, "shown": key.shown, "merchant": key.merchant, "livemode": key.livemode,
                    "scopes": key.scopes, "created_at": key.created_at, "revoked_at": key.revoked_at,
                })
            })
            .collect();
        return Ok(output::print_json(&keys)?);
    }
    if keys.is_empty() {
        output::note("There are no keys: `paystream keys create` makes one.");
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["ID", "KEY", "MERCHANT", "SCOPES", "CREATED", "REVOKED"]);
    for key in keys {
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        let shown = format!("{}…", key.shown);
        let revoked = key.revoked_at.unwrap_or_else(|| "-".to_owned());
        table.add_row([key.id, shown, key.merchant.to_string(), scopes.join(" "), key.created_at, revoked]);
    }
    Ok(output::print_line(&table.trim_fmt())?)
}

fn open(global: &Global, args: &KeysDir) -> Result<ApiKeys, Failure> {
    let config = config::load(global.config.as_deref())?.value;
    let dir = DataDir::new(args.data_dir.clone().unwrap_or(config.server.data_dir));
    dir.create().or_usage()?;
    // A directory that is named on the command line is asked for its own.
    let elsewhere = if args.data_dir.is_some() { PathBuf::new() } else { config.gateway.api_keys_file };
    ApiKeys::load(&dir.api_keys_or(&elsewhere)).or_usage()
}
