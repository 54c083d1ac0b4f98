//! Which columns of a file are which columns of the relation `transactions`.

use std::collections::BTreeMap;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use scoring::transactions;
use serde::Deserialize;

/// A mapping file: for each column of the relation, an SQL expression over the columns of the file.
///
/// `transaction_id`, `event_time`, `card` and `amount_minor` are required; a column that is not
/// mentioned is NULL, or a plain default where the relation does not allow NULL.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// The version of this form: 1.
    pub version: u32,
    /// Column of the relation → SQL expression over the file.
    pub columns: BTreeMap<String, String>,
    /// What transactions turned out to be, where the file says so.
    #[serde(default)]
    pub labels: Option<LabelMapping>,
}

/// SQL expressions over the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabelMapping {
    /// True for fraud, false for legit, NULL where it never becomes known.
    pub fraud: String,
    /// When that becomes known. Windows see it from then on, never before.
    pub known_at: String,
}

/// The columns of labels, after those of the relation.
pub(crate) const LABEL_COLUMNS: [&str; 2] = ["label.fraud", "label.known_at"];

/// Why a mapping cannot be used; everything at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct MappingError(pub Vec<String>);

const VERSION: u32 = 1;
const REQUIRED: [&str; 4] = [transactions::TRANSACTION_ID, transactions::EVENT_TIME, "card", "amount_minor"];

impl Mapping {
    /// Reads a mapping from YAML.
    ///
    /// # Errors
    /// [`MappingError`] with everything that is wrong, each with the column it is about.
    pub fn parse(yaml: &str) -> Result<Self, MappingError> {
        let mapping: Self =
            serde_saphyr::from_str(yaml).map_err(|e| MappingError(vec![e.without_snippet().to_string()]))?;
        let mut errors = Vec::new();
        if mapping.version != VERSION {
            errors
                .push(format!("version: {} is unknown, this build reads version {VERSION}", mapping.version));
        }
        let schema = transactions::schema();
        for name in mapping.columns.keys().filter(|name| schema.index_of(name).is_err()) {
            let known: Vec<_> = schema.fields().iter().map(|f| f.name().as_str()).collect();
            errors.push(format!(
                "columns.{name}: is not a column of {}: {}",
                transactions::RELATION,
                known.join(", ")
            ));
        }
        for name in REQUIRED.iter().filter(|name| !mapping.columns.contains_key(**name)) {
            errors.push(format!("columns.{name}: is required"));
        }
        if errors.is_empty() { Ok(mapping) } else { Err(MappingError(errors)) }
    }

    /// The SELECT that turns `table` into the relation, every column in place and of its type.
    pub(crate) fn select(&self, table: &str) -> String {
        let schema = transactions::schema();
        let columns = schema.fields().iter().map(|field| {
            let expression = self
                .columns
                .get(field.name())
                .map_or_else(|| default(field.name(), field.data_type(), field.is_nullable()), Clone::clone);
            format!("arrow_cast({expression}, '{}') AS \"{}\"", type_name(field.data_type()), field.name())
        });
        let label = |of: fn(&LabelMapping) -> &str| self.labels.as_ref().map_or("NULL", of);
        let labels = [
            (label(|labels| &labels.fraud), "Boolean", LABEL_COLUMNS[0]),
            (label(|labels| &labels.known_at), "Timestamp(Microsecond, None)", LABEL_COLUMNS[1]),
        ];
        let labels = labels.map(|(expression, data_type, name)| {
            format!("arrow_cast({expression}, '{data_type}') AS \"{name}\"")
        });
        format!("SELECT {} FROM {table}", columns.chain(labels).collect::<Vec<_>>().join(", "))
    }
}

/// How `arrow_cast` calls a type.
fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(TimeUnit::Microsecond, None) => "Timestamp(Microsecond, None)".to_owned(),
        other => format!("{other:?}"),
    }
}

/// What a column is where the mapping says nothing: unknown, or the plainest thing it can be.
fn default(name: &str, data_type: &DataType, nullable: bool) -> String {
    let plain = match (name, data_type) {
        _ if nullable => "NULL",
        ("merchant_id", _) => "'file'",
        ("currency", _) => "'USD'",
        ("card_brand", _) => "'unknown'",
        (_, DataType::Boolean) => "true",
        (_, DataType::Utf8) => "''",
        _ => "0",
    };
    plain.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_is_said_at_once() {
        let error = Mapping::parse("version: 2\ncolumns: {carb: X, amount_minor: A}").unwrap_err();
        let text = error.to_string();
        for expected in
            ["version: 2", "columns.carb", "columns.transaction_id", "columns.event_time", "columns.card:"]
        {
            assert!(text.contains(expected), "{expected} in {text}");
        }
    }

    #[test]
    fn the_example_mapping_parses() {
        Mapping::parse(include_str!("../../../examples/handbook.yaml")).unwrap();
    }
}
