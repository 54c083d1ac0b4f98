//! What commands print. Results go to standard output; everything else to standard error.

use std::io::{self, Write as _};

use anyhow::Context as _;
use serde::Serialize;

/// Writes a result to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("writing to standard output")
}

/// Writes a result and a newline.
pub(crate) fn print_line(text: &str) -> anyhow::Result<()> {
    print(&format!("{text}\n"))
}

/// Writes a result as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print_line(&serde_json::to_string(value).context("writing the result as JSON")?)
}

/// Writes a line for the person at the terminal.
pub(crate) fn note(text: &str) {
    // When standard error is gone there is nobody to tell.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Says what went wrong, causes after their consequences, one line per error.
pub(crate) fn complain(error: &anyhow::Error) {
    for line in format!("{error:#}").lines() {
        note(&format!("paystream: {line}"));
    }
}

/// Whether the reader of standard output has gone, as `head` does: no failure of ours.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
        && error.to_string() == "writing to standard output"
}
