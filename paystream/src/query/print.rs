//! An answer as a table, as CSV and as JSON.

use std::borrow::Cow;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value};

use super::Answer;
use crate::cli::Format;

pub(super) fn text(answer: &Answer, format: Format) -> String {
    match format {
        Format::Table => table(answer),
        Format::Csv => csv(answer),
        Format::Json => json(answer),
    }
}

fn table(answer: &Answer) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(answer.columns.iter().map(|column| &column.name));
    for row in &answer.rows {
        table.add_row(row.iter().map(plain));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let numbers = |row: &Vec<Value>| row.get(index).is_none_or(|v| v.is_number() || v.is_null());
        if answer.rows.iter().all(numbers) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let rows = match answer.rows.len() {
        1 => "1 row".to_owned(),
        n => format!("{n} rows"),
    };
    format!("{table}\n{rows}\n")
}

/// RFC 4180, with lines that end as Unix tools expect. NULL and the empty text look alike there.
fn csv(answer: &Answer) -> String {
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = Cow<'_, str>>| {
        let cells: Vec<String> = cells.map(|cell| quoted(&cell)).collect();
        text.push_str(&cells.join(","));
        text.push('\n');
    };
    line(&mut answer.columns.iter().map(|column| Cow::Borrowed(column.name.as_str())));
    for row in &answer.rows {
        line(&mut row.iter().map(plain));
    }
    text
}

fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

/// One object per row and line, so that the text can be cut and compared by line.
fn json(answer: &Answer) -> String {
    let rows: Vec<String> = answer
        .rows
        .iter()
        .map(|row| {
            let names = answer.columns.iter().map(|column| column.name.clone());
            Value::Object(names.zip(row.iter().cloned()).collect::<Map<_, _>>()).to_string()
        })
        .collect();
    if rows.is_empty() { "[]\n".to_owned() } else { format!("[{}]\n", rows.join(",\n ")) }
}

fn plain(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed(""),
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer() -> Answer {
        serde_json::from_value(json!({
            "columns": [{"name": "outcome", "type": "Utf8"}, {"name": "n", "type": "Int64"}],
            "rows": [["approve", 12], ["say \"no\", twice", null]],
            "row_count": 2,
            "truncated": false,
        }))
        .unwrap()
    }

    #[test]
    fn csv_quotes_what_has_to_be_quoted() {
        assert_eq!(csv(&answer()), "outcome,n\napprove,12\n\"say \"\"no\"\", twice\",\n");
    }

    #[test]
    fn json_is_an_array_of_objects() {
        let parsed: Value = serde_json::from_str(&json(&answer())).unwrap();
        assert_eq!(
            parsed,
            json!([{"outcome": "approve", "n": 12}, {"outcome": "say \"no\", twice", "n": null}])
        );
        assert_eq!(json(&Answer { rows: Vec::new(), ..answer() }), "[]\n");
    }

    #[test]
    fn a_table_aligns_numbers_to_the_right_and_counts_its_rows() {
        let text = table(&answer());
        assert!(text.contains("│ approve") && text.contains("12 │"), "{text}");
        assert!(text.ends_with("\n2 rows\n"), "{text}");
    }
}
