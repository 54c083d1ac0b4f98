//! Structured logs on standard error: lines for people on a terminal, JSON objects otherwise. What can be set of
//! them, and of [traces](crate::trace).

use std::fmt;
use std::io::IsTerminal as _;

use anyhow::Context as _;
use serde::Deserialize;
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;

use crate::scope;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people when standard error is a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Human,
    /// One JSON object per line.
    Json,
}

/// When output is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl Colour {
    /// Whether to colour output that goes to a terminal or not.
    #[must_use]
    pub fn enabled(self, is_terminal: bool, no_color: Option<&str>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && no_color.is_none_or(str::is_empty),
        }
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// `auto`, `human` or `json`.
    pub format: Format,
    /// A level (`info`) or directives (`warn,gateway=debug`). `RUST_LOG` goes before it.
    pub level: String,
    /// Where traces are sent: OTLP over HTTP. Empty: nowhere.
    pub otlp_endpoint: String,
    /// The share of requests whose trace is made, 0 to 1.
    pub trace_sample_ratio: f64,
    /// Whether a request's own `traceparent` decides, and goes on.
    pub trace_trust_incoming: bool,
    /// The name of this process in traces. Empty: the name of its command.
    pub service_name: String,
}

/// The longest name of a service.
const SERVICE_NAME_MAX: usize = 64;

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            format: Format::Auto,
            level: "info".to_owned(),
            otlp_endpoint: String::new(),
            trace_sample_ratio: 0.01,
            trace_trust_incoming: false,
            service_name: String::new(),
        }
    }
}

impl TelemetryConfig {
    /// Everything wrong with the section, as (key, message).
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut add = |key: &str, message: String| errors.push((key.to_owned(), message));
        if let Err(e) = EnvFilter::try_new(&self.level) {
            let message =
                format!("is not a log filter ({e}): write a level like `info`, or `warn,gateway=debug`");
            add("level", message);
        }
        let is_url =
            |text| reqwest::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !self.otlp_endpoint.is_empty() && !is_url(&self.otlp_endpoint) {
            add("otlp_endpoint", "must be empty or a URL, for example http://otel-collector:4318".to_owned());
        }
        if !(0.0..=1.0).contains(&self.trace_sample_ratio) {
            add("trace_sample_ratio", format!("{} is not between 0 and 1", self.trace_sample_ratio));
        }
        if self.service_name.len() > SERVICE_NAME_MAX || self.service_name.chars().any(char::is_control) {
            add(
                "service_name",
                format!("must be at most {SERVICE_NAME_MAX} bytes, and no control characters"),
            );
        }
        errors
    }
}

/// Starts logging for the whole process, and logs panics like everything else.
///
/// # Errors
/// When `RUST_LOG` or the configured level is not a filter, or when logging has been started before.
pub fn init(config: &TelemetryConfig, colour: Colour) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .with_context(|| format!("RUST_LOG `{text}` is not a log filter: write for example `info`"))?,
        _ => EnvFilter::try_new(&config.level).context("telemetry.level is not a log filter")?,
    };
    let is_terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let no_color = std::env::var("NO_COLOR").ok();
    let started = if resolve(config.format, is_terminal) == Format::Json {
        let json = builder.json().flatten_event(true).with_current_span(false);
        json.map_event_format(|lines| Scoped { lines, add: scope::add_to_json }).finish().try_init()
    } else {
        let ansi = colour.enabled(is_terminal, no_color.as_deref());
        let text = builder.with_ansi(ansi);
        let scoped = |lines: tracing_subscriber::fmt::format::Format| Scoped {
            lines: lines.with_ansi(ansi),
            add: scope::add_to_text,
        };
        text.map_event_format(scoped).finish().try_init()
    };
    started.context("logging has been started already")?;
    log_panics();
    Ok(())
}

/// Lines of another format, with what the work under way is about.
struct Scoped<F> {
    lines: F,
    add: fn(&mut String),
}

impl<S, N, F> FormatEvent<S, N> for Scoped<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if !scope::is_set() {
            return self.lines.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.lines.format_event(context, Writer::new(&mut line), event)?;
        (self.add)(&mut line);
        writer.write_str(&line)
    }
}

fn resolve(format: Format, is_terminal: bool) -> Format {
    match format {
        Format::Auto if is_terminal => Format::Human,
        Format::Auto => Format::Json,
        chosen => chosen,
    }
}

/// A panic is one log event with its place, so that it is found where all else is looked for.
fn log_panics() {
    std::panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        let message = crate::service::panic_message(info.payload());
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(place, thread, "panic: {message}");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colour_is_only_for_terminals_and_never_with_no_color() {
        assert!(Colour::Auto.enabled(true, None));
        assert!(Colour::Auto.enabled(true, Some("")), "an empty NO_COLOR is not set (no-color.org)");
        assert!(!Colour::Auto.enabled(true, Some("1")));
        assert!(!Colour::Auto.enabled(false, None));
        assert!(Colour::Always.enabled(false, Some("1")), "asked for on the command line");
        assert!(!Colour::Never.enabled(true, None));
    }

    #[test]
    fn a_terminal_gets_lines_for_people_and_a_pipe_gets_json() {
        assert_eq!(resolve(Format::Auto, true), Format::Human);
        assert_eq!(resolve(Format::Auto, false), Format::Json);
        assert_eq!(resolve(Format::Human, false), Format::Human);
        assert_eq!(resolve(Format::Json, true), Format::Json);
    }

    #[test]
    fn a_level_that_is_no_filter_is_an_error_with_its_key() {
        let config = TelemetryConfig { level: "gateway=loud".to_owned(), ..TelemetryConfig::default() };
        assert_eq!(config.validate()[0].0, "level");
        assert!(TelemetryConfig::default().validate().is_empty());
    }

    #[test]
    fn what_traces_cannot_be_made_with_is_listed_at_once() {
        let config = TelemetryConfig {
            otlp_endpoint: "collector:4318".to_owned(),
            trace_sample_ratio: f64::NAN,
            service_name: "a\nb".to_owned(),
            ..TelemetryConfig::default()
        };
        let keys: Vec<String> = config.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["otlp_endpoint", "trace_sample_ratio", "service_name"]);
    }

    /// What a subscriber wrote.
    #[derive(Clone, Default)]
    struct Written(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

    impl std::io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_json_line_says_at_its_top_level_what_it_is_about() {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .json()
            .flatten_event(true)
            .map_event_format(|lines| Scoped { lines, add: scope::add_to_json })
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let scope = scope::Scope { request_id: Some("req_1".into()), ..scope::Scope::default() };
        scope::within(scope, scope::within_transaction("txn_1", async { tracing::warn!(n = 1, "odd") }))
            .await;
        tracing::info!("elsewhere");
        drop(guard);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let (about, elsewhere) = text.trim_end().split_once('\n').unwrap();
        assert!(about.ends_with(",\"request_id\":\"req_1\",\"transaction_id\":\"txn_1\"}"), "{about}");
        assert!(about.contains("\"message\":\"odd\",\"n\":1"), "{about}");
        assert!(elsewhere.ends_with('}') && !elsewhere.contains("request_id"), "{elsewhere}");
    }
}
