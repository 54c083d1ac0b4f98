//! Structured logs on standard error: lines for people on a terminal, JSON objects otherwise.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use serde::Deserialize;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

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
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self { format: Format::Auto, level: "info".to_owned() }
    }
}

impl TelemetryConfig {
    /// Everything wrong with the section, as (key, message).
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        match EnvFilter::try_new(&self.level) {
            Ok(_) => Vec::new(),
            Err(e) => vec![(
                "level".to_owned(),
                format!("is not a log filter ({e}): write a level like `info`, or `warn,gateway=debug`"),
            )],
        }
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
        builder.json().flatten_event(true).with_current_span(false).finish().try_init()
    } else {
        builder.with_ansi(colour.enabled(is_terminal, no_color.as_deref())).finish().try_init()
    };
    started.context("logging has been started already")?;
    log_panics();
    Ok(())
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
}
