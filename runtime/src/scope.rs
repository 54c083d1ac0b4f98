//! What the work under way is about: every log line written in the course of it says so.

use std::fmt::{self, Write as _};
use std::sync::Arc;

use crate::trace::TraceContext;

tokio::task_local! {
    static SCOPE: Arc<Scope>;
}

/// A request, or a transaction of it.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Names the request.
    pub request_id: Option<Arc<str>>,
    /// When it is sampled.
    pub trace: Option<TraceContext>,
    /// Once it is known.
    pub transaction_id: Option<Arc<str>>,
}

impl Scope {
    /// The fields there are, in the order in which they are written.
    fn fields(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("request_id", self.request_id.as_deref().map(str::to_owned)),
            ("trace_id", self.trace.map(TraceContext::trace_id)),
            ("transaction_id", self.transaction_id.as_deref().map(str::to_owned)),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }
}

/// Does work that is about `scope`.
pub async fn within<F: Future>(scope: Scope, work: F) -> F::Output {
    SCOPE.scope(Arc::new(scope), work).await
}

/// Does work that is about one transaction of what the work so far is about.
pub async fn within_transaction<F: Future>(id: impl fmt::Display, work: F) -> F::Output {
    let outer = SCOPE.try_with(|scope| Scope::clone(scope)).unwrap_or_default();
    within(Scope { transaction_id: Some(id.to_string().into()), ..outer }, work).await
}

/// The same work with the scope of here, to be spawned as a task of its own.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let scope = SCOPE.try_with(Arc::clone).unwrap_or_default();
    SCOPE.scope(scope, work)
}

/// The trace that the work under way is part of.
#[must_use]
pub fn trace() -> Option<TraceContext> {
    SCOPE.try_with(|scope| scope.trace).ok().flatten()
}

/// Appends the fields of the scope to a log line that lacks them. Returns whether there is a scope.
pub(crate) fn is_set() -> bool {
    SCOPE.try_with(|_| ()).is_ok()
}

/// Puts the fields of the scope that a JSON line does not have already before its end.
pub(crate) fn add_to_json(line: &mut String) {
    let end = line.trim_end().len().saturating_sub(1);
    if !line[end..].starts_with('}') {
        return;
    }
    let mut added = String::new();
    visit(|name, value| {
        if !line.contains(&format!("\"{name}\":")) {
            write!(added, ",\"{name}\":\"{}\"", plain(value)).expect("writing to a String cannot fail");
        }
    });
    line.insert_str(end, &added);
}

/// Puts the fields of the scope at the end of a line for people.
pub(crate) fn add_to_text(line: &mut String) {
    let end = line.trim_end().len();
    let mut added = String::new();
    visit(|name, value| {
        if !line.contains(&format!("{name}=")) {
            write!(added, " {name}={}", plain(value)).expect("writing to a String cannot fail");
        }
    });
    line.insert_str(end, &added);
}

fn visit(mut field: impl FnMut(&'static str, &str)) {
    let _ = SCOPE.try_with(|scope| scope.fields().for_each(|(name, value)| field(name, &value)));
}

/// Ids are letters, digits and `-_.`; anything else would have to be escaped.
fn plain(value: &str) -> String {
    value.chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope { request_id: Some("req_1".into()), ..Scope::default() }
    }

    fn json(line: &str) -> String {
        let mut line = line.to_owned();
        add_to_json(&mut line);
        line
    }

    #[tokio::test]
    async fn a_line_says_what_the_work_is_about() {
        assert_eq!(json("{\"a\":1}\n"), "{\"a\":1}\n", "outside of any");
        within(scope(), async {
            assert_eq!(json("{\"a\":1}\n"), "{\"a\":1,\"request_id\":\"req_1\"}\n");
            within_transaction("txn_7", async {
                let expected = "{\"request_id\":\"own\",\"transaction_id\":\"txn_7\"}\n";
                assert_eq!(json("{\"request_id\":\"own\"}\n"), expected, "its own field stays");
                let mut text = "INFO done\n".to_owned();
                add_to_text(&mut text);
                assert_eq!(text, "INFO done request_id=req_1 transaction_id=txn_7\n");
            })
            .await;
            let task = tokio::spawn(carried(async { json("{\"a\":1}") }));
            assert_eq!(task.await.unwrap(), "{\"a\":1,\"request_id\":\"req_1\"}");
        })
        .await;
    }

    #[tokio::test]
    async fn no_value_breaks_out_of_its_field() {
        let scope = Scope { request_id: Some("a\",\"b\":\"c\n".into()), ..Scope::default() };
        assert_eq!(within(scope, async { json("{}") }).await, "{,\"request_id\":\"abc\"}");
    }
}
