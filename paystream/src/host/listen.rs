//! Where requests are served: the API with its page, and the admin routes beside it or apart.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Context as _, anyhow};
use axum::Router;
use axum::middleware::from_fn;
use prometheus::Registry;
use runtime::http::{self, HttpLimits, HttpMetrics};
use runtime::{Readiness, Service, admin};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::local;
use crate::config::ServerConfig;

/// Connections to the admin routes: a scraper, a probe and a person or two.
const MAX_ADMIN_CONNECTIONS: usize = 32;

/// The bound addresses. Bound early, so that one in use is known before anything is recovered.
#[derive(Debug)]
pub(crate) struct Listen {
    api: TcpListener,
    address: SocketAddr,
    admin: Option<(TcpListener, SocketAddr)>,
}

/// Where a person finds what is served.
#[derive(Debug, Clone)]
pub(crate) struct Urls {
    pub(crate) api: String,
    /// `None` when metrics are not served.
    pub(crate) metrics: Option<String>,
}

impl Listen {
    pub(crate) async fn bind(config: &ServerConfig) -> anyhow::Result<Self> {
        let (api, address) = bind(&config.listen, "--listen or server.listen").await?;
        let admin = match config.admin_listen.as_str() {
            "" => None,
            text => Some(bind(text, "server.admin_listen").await?),
        };
        Ok(Self { api, address, admin })
    }

    /// Whether only programs on this machine can connect.
    pub(crate) fn is_loopback(&self) -> bool {
        self.address.ip().is_loopback()
    }

    /// Whether metrics and what operators ask for are served beside the API without being asked for, or apart.
    pub(crate) fn serves_operators(&self) -> bool {
        self.is_loopback() || self.admin.is_some()
    }

    pub(crate) fn urls(&self) -> Urls {
        let metrics = match &self.admin {
            Some((_, address)) => Some(url(*address)),
            None => self.is_loopback().then(|| url(self.address)),
        };
        Urls { api: url(self.address), metrics: metrics.map(|base| format!("{base}/metrics")) }
    }

    /// Serves the routes, and those for whoever runs the system: apart when they have an address of
    /// their own; else beside them, `/metrics` and `operators` on loopback only, because they have no access
    /// control.
    pub(crate) fn serve(
        self,
        router: Router,
        operators: Router,
        registry: &Registry,
        readiness: &Readiness,
        limits: HttpLimits,
        metrics: HttpMetrics,
    ) -> (Service, Option<Service>) {
        let loopback = self.is_loopback();
        let mut router = router.merge(admin::health(readiness.clone()));
        if loopback && self.admin.is_none() {
            router = router.merge(admin::metrics(registry.clone())).merge(operators.clone());
        }
        if loopback {
            router = router.layer(from_fn(local::refuse_foreign_pages));
        }
        let admin_limits = HttpLimits { max_connections: MAX_ADMIN_CONNECTIONS, ..limits.clone() };
        let admin = self.admin.map(|(listener, _)| {
            let router = admin::router(registry.clone(), readiness.clone()).merge(operators);
            spawn("admin", |stop| http::serve(listener, router, admin_limits, stop))
        });
        let api = self.api;
        (spawn("http", |stop| http::serve_measured(api, router, limits, metrics, stop)), admin)
    }
}

fn spawn<F>(name: &'static str, serve: impl FnOnce(CancellationToken) -> F) -> Service
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let stop = CancellationToken::new();
    Service { name, task: tokio::spawn(serve(stop.clone())), stop }
}

async fn bind(text: &str, setting: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(text).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => "another program listens there: stop it",
            std::io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: use a higher one",
            _ => "it has to be an address of this machine and a port: correct it",
        };
        anyhow!("listening on {text}: {error}; {hint}, or choose another with {setting}")
    })?;
    let address = listener.local_addr().with_context(|| format!("listening on {text}"))?;
    Ok((listener, address))
}

/// The address as a URL that a program on this machine can use.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_an_address_that_can_be_connected_to() {
        for (address, expected) in [
            ("127.0.0.1:80", "http://127.0.0.1:80"),
            ("0.0.0.0:8080", "http://127.0.0.1:8080"),
            ("[::]:8080", "http://[::1]:8080"),
            ("10.0.0.7:1", "http://10.0.0.7:1"),
        ] {
            assert_eq!(url(address.parse().unwrap()), expected);
        }
    }

    #[tokio::test]
    async fn an_address_in_use_is_an_error_that_says_what_to_do() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind(&address, "--listen").await.unwrap_err().to_string();
        assert!(error.contains("another program listens there") && error.contains("--listen"), "{error}");
        assert!(!error.contains('\n'));
    }
}
