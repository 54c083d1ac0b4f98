//! What a client hears when there are enough connections already.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// For the answer and for the client to take it.
const DEADLINE: Duration = Duration::from_secs(2);
/// What is read of a request that is refused anyway, so that closing does not reset the connection
/// before the client has read the answer.
const MAX_DISCARDED_BYTES: u64 = 64 * 1024;

const BODY: &str = r#"{"type":"about:blank","title":"Too many connections","status":503,"detail":"This server has as many connections open as it allows. Try again in a second, or use fewer connections."}"#;

pub(super) async fn too_many_connections(mut stream: TcpStream) {
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         content-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{BODY}",
        BODY.len()
    );
    let write_and_discard = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut (&mut stream).take(MAX_DISCARDED_BYTES), &mut tokio::io::sink()).await
    };
    // Whether the client listened makes no difference to anyone else.
    if let Ok(Err(error)) = tokio::time::timeout(DEADLINE, write_and_discard).await {
        tracing::debug!(%error, "a refused client went away");
    }
}
