//! The page's files, built into the binary.

use std::sync::LazyLock;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use sha2::{Digest as _, Sha256};

/// Nothing is loaded from elsewhere, nothing inline runs, and nobody may frame the page.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

struct File {
    name: &'static str,
    bytes: &'static [u8],
    content_type: &'static str,
}

const JS: &str = "text/javascript; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const SVG: &str = "image/svg+xml";

macro_rules! files {
    ($($name:literal: $content_type:ident,)*) => {
        [$(File {
            name: $name,
            bytes: include_bytes!(concat!("../page/", $name)),
            content_type: $content_type,
        },)*]
    };
}

static FILES: LazyLock<Vec<(File, HeaderValue)>> = LazyLock::new(|| {
    let files = files! {
        "index.html": HTML,
        "api.js": JS,
        "app.js": JS,
        "charts.js": JS,
        "console.js": JS,
        "decisions.js": JS,
        "detail.js": JS,
        "dom.js": JS,
        "format.js": JS,
        "model.js": JS,
        "panels.js": JS,
        "stream.js": JS,
        "theme.js": JS,
        "uplot.js": JS,
        "style.css": CSS,
        "uplot.css": CSS,
        "icon.svg": SVG,
    };
    files.into_iter().map(|file| (etag(file.bytes), file)).map(|(etag, file)| (file, etag)).collect()
});

fn etag(bytes: &[u8]) -> HeaderValue {
    let hash = hex::encode(&Sha256::digest(bytes)[..16]);
    HeaderValue::from_str(&format!("\"{hash}\"")).expect("hexadecimal digits and quotes")
}

/// `/` and its files, beside it (the page names them relatively) and below `/assets/`.
pub(crate) fn router() -> Router {
    let mut router = Router::new();
    for (file, etag) in FILES.iter() {
        let serve = move |headers: HeaderMap| async move { answer(file, etag, &headers) };
        let paths = match file.name {
            "index.html" => vec!["/".to_owned()],
            name => vec![format!("/{name}"), format!("/assets/{name}")],
        };
        for path in paths {
            router = router.route(&path, get(serve));
        }
    }
    router
}

fn answer(file: &'static File, etag: &HeaderValue, request: &HeaderMap) -> Response {
    let known = request
        .get(header::IF_NONE_MATCH)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|tags| tags.split(',').any(|tag| tag.trim().trim_start_matches("W/") == etag));
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(file.content_type)),
        (header::ETAG, etag.clone()),
        // Kept, but asked for again each time: a new binary's page is never mixed with an old one's.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    if known {
        (StatusCode::NOT_MODIFIED, headers).into_response()
    } else {
        (headers, file.bytes).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_page_is_served() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/page");
        let is_asset =
            |name: &String| [".html", ".js", ".css", ".svg"].iter().any(|ending| name.ends_with(ending));
        let mut on_disk: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(is_asset)
            .collect();
        let mut served: Vec<String> = FILES.iter().map(|(file, _)| file.name.to_owned()).collect();
        on_disk.sort();
        served.sort();
        assert_eq!(served, on_disk);
    }

    #[test]
    fn the_page_needs_nothing_that_its_policy_forbids() {
        let (index, _) = FILES.iter().find(|(file, _)| file.name == "index.html").unwrap();
        let html = std::str::from_utf8(index.bytes).unwrap();
        for forbidden in
            [" style=\"", " onclick=", "<style", "src=\"http", "href=\"http", "src=\"//", "<script>"]
        {
            assert!(!html.contains(forbidden), "{forbidden}");
        }
    }
}
