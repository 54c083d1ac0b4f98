//! `paystream healthcheck`: whether a running system can serve.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};

use crate::cli::{Global, HealthcheckArgs};
use crate::config::{self, ServerConfig};
use crate::exit::{Failure, Outcome};

/// As much of an answer is shown.
const SHOWN_CHARS: usize = 300;

pub(crate) fn run(global: &Global, args: &HealthcheckArgs) -> Outcome {
    let url = match &args.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => default_url(global)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("starting the asynchronous runtime")?;
    Ok(runtime.block_on(ask(&format!("{url}/readyz"), args.timeout))?)
}

/// Where the configuration says that the system is. A container's supervisor knows statuses 0 and 1 only, so a
/// configuration that cannot be read is a failed check.
fn default_url(global: &Global) -> Result<String, Failure> {
    let config = config::load(global.config.as_deref()).map_err(|failure| match failure {
        Failure::Usage(error) => Failure::Failed(error),
        other => other,
    })?;
    Ok(url_of(&config.value.server)?)
}

fn url_of(server: &ServerConfig) -> anyhow::Result<String> {
    let text = if server.admin_listen.is_empty() { &server.listen } else { &server.admin_listen };
    // A name is resolved by the client.
    let Ok(address) = text.parse::<SocketAddr>() else { return Ok(format!("http://{text}")) };
    if address.port() == 0 {
        bail!("{text} is a port that the system chooses when it starts: name it with --url");
    }
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    Ok(format!("http://{}", SocketAddr::new(ip, address.port())))
}

async fn ask(url: &str, timeout: Duration) -> anyhow::Result<()> {
    let client = reqwest::Client::builder().no_proxy().timeout(timeout).build();
    let answer = client.context("starting the HTTP client")?.get(url).send().await.map_err(|error| {
        if error.is_timeout() {
            anyhow!("{url} did not answer within {timeout:?}")
        } else {
            anyhow!("{error:#}")
        }
    })?;
    let status = answer.status();
    if status == reqwest::StatusCode::OK {
        return Ok(());
    }
    let body: String = answer.text().await.unwrap_or_default().chars().take(SHOWN_CHARS).collect();
    bail!("{url} answered {status}: {body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(listen: &str, admin_listen: &str) -> ServerConfig {
        let mut server = config::defaults().server;
        listen.clone_into(&mut server.listen);
        admin_listen.clone_into(&mut server.admin_listen);
        server
    }

    #[test]
    fn the_admin_address_is_asked_where_there_is_one() {
        for (listen, admin, url) in [
            ("127.0.0.1:8080", "", "http://127.0.0.1:8080"),
            ("0.0.0.0:8080", "", "http://127.0.0.1:8080"),
            ("0.0.0.0:8080", "[::]:9090", "http://[::1]:9090"),
            ("gateway:80", "", "http://gateway:80"),
        ] {
            assert_eq!(url_of(&server(listen, admin)).unwrap(), url);
        }
        assert!(url_of(&server("127.0.0.1:0", "")).is_err());
    }
}
