//! Redis: reachable, lets us in, and forgets nothing before its time.

use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::check::Verdict;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const PORT: u16 = 6379;
/// Under these, keys with a time to live are not dropped before it, or those that live shortest are first.
const POLICIES: [&str; 2] = ["noeviction", "volatile-ttl"];
/// The longest answer expected here.
const BULK_MAX_BYTES: usize = 64 * 1024;

/// A reply, as far as it is used here.
#[derive(Debug, PartialEq, Eq)]
enum Reply {
    Text(String),
    Error(String),
    List(Vec<Reply>),
}

struct Connection {
    stream: BufReader<TcpStream>,
}

/// The URL may hold a password: no message names it.
pub(super) async fn reach(url: String) -> Verdict {
    let hint = "start it, or correct redis.url; the gateway goes on without meanwhile";
    let (mut connection, at) = match connect(&url).await {
        Ok(connected) => connected,
        Err(error) => return Verdict::fail(format!("{error:#}"), hint),
    };
    match connection.ask(&["PING"]).await {
        Ok(Reply::Text(_)) => {}
        Ok(other) => return Verdict::fail(format!("{at} answers PING with {other:?}"), hint),
        Err(error) => return Verdict::fail(format!("{at}: {error:#}"), hint),
    }
    match connection.ask(&["CONFIG", "GET", "maxmemory-policy"]).await {
        Ok(Reply::List(answer)) => match answer.get(1) {
            Some(Reply::Text(policy)) => judge(&at, policy),
            _ => unknown(&at),
        },
        // Managed ones may not tell.
        _ => unknown(&at),
    }
}

fn unknown(at: &str) -> Verdict {
    Verdict::ok(format!("{at} answers; it does not say what it evicts"))
}

fn judge(at: &str, policy: &str) -> Verdict {
    if POLICIES.contains(&policy) {
        return Verdict::ok(format!("{at} answers, maxmemory-policy {policy}"));
    }
    Verdict::warn(
        format!("{at} may evict idempotency keys: maxmemory-policy {policy}"),
        "set maxmemory-policy to noeviction or volatile-ttl",
    )
}

/// Connects and logs in; returns the address, too.
async fn connect(url: &str) -> anyhow::Result<(Connection, String)> {
    let parsed = reqwest::Url::parse(url).ok().filter(|url| url.scheme() == "redis");
    let parsed = parsed.context("redis.url is no redis:// URL")?;
    let host = parsed.host_str().context("redis.url names no host")?;
    let port = parsed.port().unwrap_or(PORT);
    let at = format!("{host}:{port}");
    let address = (host.trim_start_matches('[').trim_end_matches(']'), port);
    let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .with_context(|| format!("{at} does not answer within {} s", CONNECT_TIMEOUT.as_secs()))?
        .with_context(|| format!("connecting to {at}"))?;
    let mut connection = Connection { stream: BufReader::new(stream) };
    if let Some(password) = parsed.password() {
        let (user, password) = (decoded(parsed.username()), decoded(password));
        let login = if user.is_empty() { vec!["AUTH", &password] } else { vec!["AUTH", &user, &password] };
        if let Reply::Error(error) =
            connection.ask(&login).await.with_context(|| format!("logging in at {at}"))?
        {
            bail!("{at} refuses the login: {error}");
        }
    }
    let database = parsed.path().trim_start_matches('/');
    if !database.is_empty()
        && let Reply::Error(error) = connection.ask(&["SELECT", database]).await?
    {
        bail!("{at} has no database {database}: {error}");
    }
    Ok((connection, at))
}

/// What a URL has as %XX.
fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = text.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        match escaped.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

impl Connection {
    async fn ask(&mut self, words: &[&str]) -> anyhow::Result<Reply> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(command.as_bytes()).await.context("sending a command")?;
        match self.reply().await? {
            Nested::Plain(reply) => Ok(reply),
            Nested::List(count) => {
                let mut items = Vec::new();
                for _ in 0..count {
                    match self.reply().await? {
                        Nested::Plain(reply) => items.push(reply),
                        Nested::List(_) => bail!("an answer of a form that is not expected"),
                    }
                }
                Ok(Reply::List(items))
            }
        }
    }

    async fn reply(&mut self) -> anyhow::Result<Nested> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).await.context("reading the answer")?;
        if read == 0 {
            bail!("the connection was closed");
        }
        let line = line.trim_end();
        let (kind, rest) = line.split_at_checked(1).context("an empty answer")?;
        Ok(match kind {
            "+" | ":" => Nested::Plain(Reply::Text(rest.to_owned())),
            "-" => Nested::Plain(Reply::Error(rest.to_owned())),
            "$" => Nested::Plain(Reply::Text(self.bulk(rest).await?)),
            "*" => Nested::List(rest.parse::<u8>().context("an answer of a form that is not expected")?),
            _ => bail!("this is no Redis"),
        })
    }

    async fn bulk(&mut self, length: &str) -> anyhow::Result<String> {
        let length: usize = length.parse().unwrap_or_default();
        if length > BULK_MAX_BYTES {
            bail!("an answer of {length} bytes");
        }
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes).await.context("reading the answer")?;
        bytes.truncate(length);
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// A reply, or how many follow.
enum Nested {
    Plain(Reply),
    List(u8),
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::check::Status;
    use super::*;

    /// Says the answers, one for each command, and returns what it was asked.
    async fn redis(answers: &'static [&'static str]) -> (String, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = String::new();
            for answer in answers {
                let mut bytes = [0; 1_024];
                let read = stream.read(&mut bytes).await.unwrap();
                asked.push_str(&String::from_utf8_lossy(&bytes[..read]));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            asked
        });
        (address, server)
    }

    #[tokio::test]
    async fn it_logs_in_and_asks_what_is_evicted() {
        const POLICY: &str = "*2\r\n$16\r\nmaxmemory-policy\r\n$11\r\nallkeys-lru\r\n";
        let (address, server) = redis(&["+OK\r\n", "+OK\r\n", "+PONG\r\n", POLICY]).await;
        let verdict = reach(format!("redis://me:p%40ss@{address}/3")).await;
        assert!(verdict.status == Status::Warn && verdict.message.contains("allkeys-lru"), "{verdict:?}");
        let asked = server.await.unwrap();
        for part in
            ["AUTH\r\n$2\r\nme\r\n$4\r\np@ss\r\n", "SELECT\r\n$1\r\n3\r\n", "PING", "maxmemory-policy"]
        {
            assert!(asked.contains(part), "{part} in {asked}");
        }
    }

    #[tokio::test]
    async fn a_wrong_password_is_told_and_not_shown() {
        let (address, _server) = redis(&["-WRONGPASS invalid username-password pair\r\n"]).await;
        let verdict = reach(format!("redis://:hunter2@{address}")).await;
        assert!(verdict.status == Status::Fail && verdict.message.contains("WRONGPASS"), "{verdict:?}");
        assert!(!format!("{verdict:?}").contains("hunter2"));
        let away = reach("redis://:hunter2@127.0.0.1:1".to_owned()).await;
        assert!(away.status == Status::Fail && !format!("{away:?}").contains("hunter2"), "{away:?}");
    }

    #[tokio::test]
    async fn a_real_one_answers() {
        let Some(url) = std::env::var("PAYSTREAM_TEST_REDIS").ok().filter(|url| !url.is_empty()) else {
            use std::io::Write as _;
            let skipped = "\n*** SKIPPED: PAYSTREAM_TEST_REDIS is not set; run `make test` ***\n";
            let _ = writeln!(std::io::stderr(), "{skipped}");
            return;
        };
        let verdict = reach(url).await;
        assert!(verdict.status != Status::Fail && verdict.message.contains("answers"), "{verdict:?}");
    }
}
