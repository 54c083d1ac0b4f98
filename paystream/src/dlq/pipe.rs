//! A command that mends a value: standard input to standard output.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

/// How long the command may take for one value.
const DEADLINE: Duration = Duration::from_secs(30);
/// The longest value it may say.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What the command makes of a value.
pub(super) async fn mend(command: &str, value: Vec<u8>) -> anyhow::Result<Vec<u8>> {
    let name = command.to_owned();
    let run = tokio::task::spawn_blocking(move || run(&name, value, DEADLINE));
    run.await.context("running the command")?.with_context(|| format!("--pipe `{command}`"))
}

fn run(command: &str, value: Vec<u8>, deadline: Duration) -> anyhow::Result<Vec<u8>> {
    let until = Instant::now() + deadline;
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting it in a shell")?;
    let (Some(mut stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        bail!("it has no standard input and output");
    };
    // Threads of their own: a command may answer before it has read everything. One that ignores its input
    // is no failure.
    std::thread::spawn(move || stdin.write_all(&value));
    let (said, answer) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let mut mended = Vec::new();
        let read = stdout.take(MAX_BYTES + 1).read_to_end(&mut mended).map(|_| mended);
        // The receiver has gone when the deadline has passed.
        let _ = said.send(read);
    });
    let mended = match answer.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(mended) => mended.context("reading what it says")?,
        Err(RecvTimeoutError::Timeout) => {
            stop(&mut child);
            bail!("it has not ended within {} s", deadline.as_secs());
        }
        Err(RecvTimeoutError::Disconnected) => bail!("reading what it says"),
    };
    if mended.len() as u64 > MAX_BYTES {
        stop(&mut child);
        bail!("it says more than {MAX_BYTES} bytes");
    }
    let status = child.wait().context("waiting for its end")?;
    ensure!(status.success(), "it ended with {status}");
    // What a line-wise tool adds is not part of the value.
    let mended = mended.strip_suffix(b"\n").unwrap_or(&mended).to_vec();
    ensure!(!mended.is_empty(), "it said nothing");
    Ok(mended)
}

fn stop(child: &mut Child) {
    // It may have ended by itself.
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(command: &str) -> anyhow::Result<Vec<u8>> {
        run(command, b"a broken value".to_vec(), Duration::from_secs(20))
    }

    #[test]
    fn a_command_mends_a_value() {
        assert_eq!(mended("sed s/broken/whole/").unwrap(), b"a whole value");
        assert_eq!(mended("echo all new").unwrap(), b"all new", "it need not read the old one");
        let large = run("cat", vec![b'x'; 1_000_000], DEADLINE).unwrap();
        assert_eq!(large.len(), 1_000_000, "larger than a pipe holds");
    }

    #[test]
    fn a_command_that_fails_says_nothing_or_hangs_is_an_error() {
        for (command, said) in [
            ("exit 3", "ended with"),
            ("cat >/dev/null", "said nothing"),
            ("no-such-command-here", "ended with"),
        ] {
            assert!(format!("{:#}", mended(command).unwrap_err()).contains(said), "{command}");
        }
        let hung = run("exec sleep 60", Vec::new(), Duration::from_millis(100)).unwrap_err();
        assert!(hung.to_string().contains("not ended"), "{hung:#}");
    }
}
