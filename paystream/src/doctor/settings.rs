//! What the configuration's files hold.

use std::path::{Path, PathBuf};

use gateway::ApiKeys;

use super::Patient;
use super::check::Verdict;
use super::network::is_loopback;

pub(super) fn ruleset(patient: &Patient) -> Verdict {
    match patient.config.scoring.ruleset() {
        Ok(ruleset) => Verdict::ok(format!(
            "{} features, {} rules, {} lists ({})",
            ruleset.feature_names().len(),
            ruleset.rule_ids().len(),
            ruleset.lists().len(),
            ruleset.hash()
        )),
        Err(error) => Verdict::fail(
            format!("{error:#}"),
            "correct the files of scoring.features_dir, scoring.rules_dir and scoring.lists_dir",
        ),
    }
}

pub(super) fn routes(patient: &Patient) -> Verdict {
    match alerter::Routes::load(&patient.config.alerter) {
        Ok(_) => Verdict::ok("valid"),
        Err(error) => Verdict::fail(
            error.to_string(),
            "correct the file that alerter.routes_file names; try it with `paystream alerter check-config`",
        ),
    }
}

pub(super) fn api_keys(patient: &Patient) -> Verdict {
    let keys = match ApiKeys::load(&patient.dir.api_keys_or(&patient.config.gateway.api_keys_file)) {
        Ok(keys) => keys,
        Err(error) => {
            return Verdict::fail(error.to_string(), "restore the file, or let paystream's user read it");
        }
    };
    let valid = keys.list().iter().filter(|key| key.revoked_at.is_none()).count();
    let listen = &patient.config.server.listen;
    if valid > 0 {
        return Verdict::ok(format!("{valid} valid"));
    }
    if is_loopback(listen) {
        return Verdict::ok(format!("none, and none needed on {listen}"));
    }
    Verdict::fail(
        format!("there are none, and {listen} is not a loopback address: `up` does not start"),
        format!("make one: `paystream keys create --data-dir {}`", patient.dir.path().display()),
    )
}

/// What lies in `keys/` is for its owner alone.
pub(super) fn secret_files(patient: &Patient) -> Verdict {
    let dir = patient.dir.keys();
    if !dir.exists() {
        return Verdict::ok("none yet: the first start makes them");
    }
    let entries = match std::fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(error) => {
            let hint = "run this as the user that paystream runs as";
            return Verdict::fail(format!("{} cannot be read: {error}", dir.display()), hint);
        }
    };
    let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    let open: Vec<String> = std::iter::once(&dir)
        .chain(&files)
        .filter(|path| is_open_to_others(path))
        .map(|path| path.display().to_string())
        .collect();
    if open.is_empty() {
        return Verdict::ok(format!("{} in {}, for their owner alone", files.len(), dir.display()));
    }
    Verdict::fail(
        format!("others may read {}", open.join(", ")),
        format!("chmod -R go= {}; then consider what was in them known", dir.display()),
    )
}

#[cfg(unix)]
pub(super) fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(not(unix))]
pub(super) fn is_open_to_others(_path: &Path) -> bool {
    false
}
