//! `PATH=VALUE`: which records are shown.

use serde_json::Value;

/// A field and the value it has to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    path: Vec<String>,
    value: String,
}

impl Filter {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (path, value) = text.split_once('=').unwrap_or_default();
        let path: Vec<String> = path.split('.').map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err("expected PATH=VALUE, for example data.decision.outcome=decline".to_owned());
        }
        Ok(Self { path, value: value.to_owned() })
    }

    pub(crate) fn matches(&self, message: &Value) -> bool {
        holds(message, &self.path, &self.value)
    }
}

impl std::fmt::Display for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}", self.path.join("."), self.value)
    }
}

fn holds(value: &Value, path: &[String], wanted: &str) -> bool {
    match (value, path.split_first()) {
        (Value::Array(items), _) => items.iter().any(|item| holds(item, path, wanted)),
        (Value::Object(fields), Some((name, rest))) => {
            fields.get(name).is_some_and(|field| holds(field, rest, wanted))
        }
        (_, Some(_)) | (Value::Object(_), None) => false,
        (Value::String(text), None) => text == wanted,
        (scalar, None) => {
            let text = scalar.to_string();
            text == wanted
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filter_finds_a_field_at_any_depth_and_in_any_element() {
        let message = json!({"v": 1, "data": {"outcome": "decline", "live": false,
            "reasons": [{"code": "a"}, {"code": "b"}], "note": null}});
        let matches = |text: &str| Filter::parse(text).unwrap().matches(&message);
        for text in
            ["v=1", "data.outcome=decline", "data.live=false", "data.reasons.code=b", "data.note=null"]
        {
            assert!(matches(text), "{text}");
        }
        for text in
            ["v=2", "data.outcome=", "data.outcome.x=decline", "data.reasons=a", "data=decline", "w=1"]
        {
            assert!(!matches(text), "{text}");
        }
        for wrong in ["", "v", "=1", "a..b=1"] {
            assert!(Filter::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Filter::parse("a.b=c=d").unwrap().to_string(), "a.b=c=d");
    }
}
