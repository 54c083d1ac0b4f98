//! Who a request belongs to, and what it may do.
//!
//! - `keys`: the file of API keys.
//! - `guard`: the middleware.

mod guard;
mod keys;

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use events::MerchantId;
use serde::{Deserialize, Serialize};

pub use guard::{ScopeGuard, require_scope};
pub use keys::{ApiKey, ApiKeys, KeysError};

use crate::problem::{Kind, Problem};

/// What a key may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Scope {
    /// Submit and label transactions.
    #[serde(rename = "transactions:write")]
    TransactionsWrite,
    /// Ask for transactions.
    #[serde(rename = "transactions:read")]
    TransactionsRead,
    /// See the lists, and change them for the merchant's own transactions.
    #[serde(rename = "lists")]
    Lists,
    /// Change lists for everyone's transactions.
    #[serde(rename = "lists:all")]
    ListsAll,
    /// The dashboard and the query API.
    #[serde(rename = "analytics")]
    Analytics,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] =
        [Self::TransactionsWrite, Self::TransactionsRead, Self::Lists, Self::ListsAll, Self::Analytics];

    /// What a key is for unless told otherwise: everything that concerns the merchant itself.
    pub const USUAL: [Self; 4] =
        [Self::TransactionsWrite, Self::TransactionsRead, Self::Lists, Self::Analytics];

    /// The scope as it is written in the keys file and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TransactionsWrite => "transactions:write",
            Self::TransactionsRead => "transactions:read",
            Self::Lists => "lists",
            Self::ListsAll => "lists:all",
            Self::Analytics => "analytics",
        }
    }
}

impl std::str::FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("no scope `{text}`: the scopes are {known}")
        })
    }
}

/// The merchant behind a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose transactions the request may touch.
    pub merchant: MerchantId,
    /// `false` for test keys.
    pub livemode: bool,
    /// What the key may be used for.
    pub scopes: Vec<Scope>,
    /// What the key's rate limit is kept under.
    pub(crate) bucket: u128,
}

impl Caller {
    fn anonymous_test_merchant() -> Self {
        Self {
            merchant: "test".parse().expect("`test` is a merchant id"),
            livemode: false,
            scopes: Scope::USUAL.to_vec(),
            bucket: 0,
        }
    }
}

/// Tells who a request belongs to, from its headers.
#[derive(Debug, Clone)]
pub struct Authenticator {
    keys: ApiKeys,
    anonymous: Option<Arc<Caller>>,
}

impl Authenticator {
    pub(crate) fn new(keys: ApiKeys, allow_anonymous_test_merchant: bool) -> Self {
        let anonymous = allow_anonymous_test_merchant.then(|| Arc::new(Caller::anonymous_test_merchant()));
        Self { keys, anonymous }
    }

    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<Arc<Caller>, Problem> {
        let Some(key) = presented_key(headers)? else {
            return self.anonymous.clone().ok_or_else(|| {
                Problem::new(Kind::Unauthenticated, "Send an API key: `Authorization: Bearer sk_…`.")
            });
        };
        self.keys.find(key).ok_or_else(|| {
            Problem::new(Kind::Unauthenticated, "The API key is unknown or revoked. Use a valid one.")
        })
    }
}

/// The key in `Authorization: Bearer` or its alias `X-API-Key`. A request with credentials that cannot
/// be read is refused, never treated as one without.
fn presented_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let refuse = |detail: &'static str| Err(Problem::new(Kind::Unauthenticated, detail));
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let bearer = match (values.next(), values.next()) {
        (None, _) => None,
        (Some(_), Some(_)) => return refuse("Send one `Authorization` header."),
        (Some(value), None) => {
            let scheme_and_key = value.to_str().ok().and_then(|text| text.split_once(' '));
            match scheme_and_key {
                Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") => Some(key.trim()),
                _ => return refuse("`Authorization` has to be `Bearer` and an API key."),
            }
        }
    };
    let alias = match headers.get("x-api-key").map(|value| value.to_str()) {
        None => None,
        Some(Ok(key)) => Some(key.trim()),
        Some(Err(_)) => return refuse("`X-API-Key` has to be an API key."),
    };
    match (bearer, alias) {
        (Some(a), Some(b)) if a != b => {
            refuse("`Authorization` and `X-API-Key` hold different keys: send one of them.")
        }
        (bearer, alias) => Ok(bearer.or(alias)),
    }
}
