//! The page's queries from `sql/queries/`, with their parameters filled in.
//!
//! Parameters are written as ClickHouse writes them, `{since:DateTime64(3)}`, so that the files run there
//! unchanged; here each is replaced by a literal of its type.

/// A value for a parameter.
#[derive(Debug, Clone)]
pub(crate) enum Param<'a> {
    /// `DateTime64(3)`: milliseconds since the Unix epoch.
    TimeMs(i64),
    /// `UInt32`.
    Number(u32),
    /// `String`.
    Text(&'a str),
}

macro_rules! queries {
    ($($(#[$doc:meta])* $name:ident = $file:literal;)*) => {
        $($(#[$doc])* pub(crate) const $name: &str = include_str!(concat!("../../sql/queries/", $file));)*

        /// Every query, by its file's name.
        #[cfg(test)]
        pub(crate) const ALL: &[(&str, &str)] = &[$(($file, $name),)*];
    };
}

queries! {
    TOTALS = "totals.sql";
    ALERTS_TOTAL = "alerts_total.sql";
    LATEST_DECISIONS = "latest_decisions.sql";
    LATEST_ALERTS = "latest_alerts.sql";
    RECENT_DECISIONS = "recent_decisions.sql";
    LIVE_RULE_HITS = "live_rule_hits.sql";
    OUTCOMES_PER_MINUTE = "outcomes_per_minute.sql";
    TRANSACTION = "transaction.sql";
    TRANSACTION_DECISION = "transaction_decision.sql";
    TRANSACTION_RULE_HITS = "transaction_rule_hits.sql";
    TRANSACTION_ALERTS = "transaction_alerts.sql";
    TRANSACTION_LABELS = "transaction_labels.sql";
    STORED_DECISIONS = "stored_decisions.sql";
    STORED_TRANSACTIONS = "stored_transactions.sql";
}

/// The query with its parameters replaced by literals.
///
/// # Panics
/// When a parameter is not in the query, or one in the query was not given: both are constants of this
/// crate, and a test binds every query.
pub(crate) fn bind(sql: &str, params: &[(&str, Param<'_>)]) -> String {
    let mut bound = sql.to_owned();
    for (name, param) in params {
        let (kind, literal) = match param {
            Param::TimeMs(ms) => ("DateTime64(3)", format!("to_timestamp_millis({ms})")),
            Param::Number(number) => ("UInt32", number.to_string()),
            Param::Text(text) => ("String", format!("'{}'", text.replace('\'', "''"))),
        };
        let placeholder = format!("{{{name}:{kind}}}");
        assert!(bound.contains(&placeholder), "the query has no parameter {placeholder}");
        bound = bound.replace(&placeholder, &literal);
    }
    bound
}

/// The parameters as ClickHouse takes them, beside the unchanged query.
pub(crate) fn params(params: &[(&str, Param<'_>)]) -> Vec<(String, String)> {
    let value = |param: &Param<'_>| match param {
        Param::TimeMs(ms) => format!("{}.{:03}", ms.div_euclid(1_000), ms.rem_euclid(1_000)),
        Param::Number(number) => number.to_string(),
        // Values are unescaped as in a tab-separated file.
        Param::Text(text) => {
            text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
        }
    };
    params.iter().map(|(name, param)| (format!("param_{name}"), value(param))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_cannot_end_its_literal() {
        assert_eq!(bind("{id:String}", &[("id", Param::Text("a' OR '1'='1"))]), "'a'' OR ''1''=''1'");
    }

    #[test]
    fn every_file_in_the_folder_is_used_and_says_what_it_is_for() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/queries");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let mut used: Vec<String> = ALL.iter().map(|(file, _)| (*file).to_owned()).collect();
        files.sort();
        used.sort();
        assert_eq!(files, used);
        assert!(ALL.iter().all(|(_, sql)| sql.starts_with("-- ")));
    }
}
