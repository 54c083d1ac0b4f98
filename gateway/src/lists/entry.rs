//! One entry as a caller writes it: a value, a card number to make a token of, or a transaction to take the
//! value from.

use events::{
    ListAction, ListChange, ListDeclaration, ListKind, ListScope, ListSource, ListValue, Transaction,
};

use crate::auth::{Caller, Scope};
use crate::pan::Pan;
use crate::problem::{Kind, Problem};
use crate::request::{Errors, Flaw, FreeText, Object, card_number};
use crate::state::App;
use crate::stored;

const NOTE: FreeText = FreeText { chars_max: 500 };
const VALUE: FreeText = FreeText { chars_max: 256 };

/// What is done to which list, and for whom.
#[derive(Clone, Copy)]
pub(crate) struct To<'a> {
    pub(crate) app: &'a App,
    pub(crate) caller: &'a Caller,
    pub(crate) list: &'a ListDeclaration,
    pub(crate) action: ListAction,
}

/// Where the value is.
enum Source {
    Here(String),
    /// In the transaction of this id.
    Transaction(String),
}

/// An entry, its value perhaps still to be fetched.
struct Draft {
    source: Source,
    for_everyone: bool,
    expires_at_us: Option<i64>,
    note: Option<String>,
}

impl To<'_> {
    /// Reads an entry; fetches the transaction if it names one.
    pub(crate) async fn read(&self, body: &[u8]) -> Result<ListChange, Problem> {
        let now_us = self.app.clock.now_us();
        let draft = self.draft(body, now_us)?;
        let scope = self.scope(draft.for_everyone)?;
        let value = match draft.source {
            Source::Here(value) => value,
            Source::Transaction(id) => self.of_transaction(&id).await?,
        };
        Ok(ListChange {
            list: self.list.id.clone(),
            value,
            action: self.action,
            expires_at_us: draft.expires_at_us,
            source: match scope {
                ListScope::All => ListSource::Operator,
                ListScope::Merchant { .. } => ListSource::Merchant,
            },
            scope,
            changed_at_us: now_us,
            note: draft.note,
        })
    }

    /// Everything up to the first wait. A card number is wiped when this returns.
    fn draft(&self, body: &[u8], now_us: i64) -> Result<Draft, Problem> {
        let mut object = Object::of_body(body)?;
        let mut errors = Errors::default();
        let kind = self.list.kind;
        let mut given = Vec::new();
        let mut own: Option<Pan> = None;
        if let Some(raw) = object.take("value") {
            let read = VALUE.read(raw, None).and_then(|text| canonical(kind, &text));
            given.push(errors.keep("/value", read).map(Source::Here));
        }
        if kind == ListKind::Card
            && let Some(raw) = object.take("card_number")
        {
            own = errors.keep("/card_number", card_number(raw));
            let token = own.as_ref().map(|pan| self.app.tokeniser.token(pan).to_string());
            given.push(token.map(Source::Here));
        }
        if in_transactions(kind)
            && let Some(raw) = object.take("transaction_id")
        {
            let read = errors.keep("/transaction_id", raw.text());
            given.push(read.map(|id| Source::Transaction(id.into_owned())));
        }
        match given.len() {
            0 => errors.missing("/value"),
            1 => {}
            _ => errors.add("", Flaw::new("conflict", "names its value more than once: send one of them")),
        }
        let expires_at_us = (self.action == ListAction::Add)
            .then(|| object.take("expires_at"))
            .flatten()
            .and_then(|raw| errors.keep("/expires_at", raw.text().and_then(|text| expiry(&text, now_us))));
        let for_everyone = object.take("scope").and_then(|raw| {
            let read = raw.text().and_then(|text| match &*text {
                "all" => Ok(true),
                "merchant" => Ok(false),
                _ => Err(Flaw::new("format", "has to be `merchant` or `all`")),
            });
            errors.keep("/scope", read)
        });
        let note = object.take("note").and_then(|raw| errors.keep("/note", NOTE.read(raw, own.as_ref())));
        object.finish(&mut errors);
        match given.pop().flatten() {
            Some(source) if errors.is_empty() => {
                Ok(Draft { source, for_everyone: for_everyone.unwrap_or(false), expires_at_us, note })
            }
            _ => Err(errors.into_problem()),
        }
    }

    /// A caller's own transactions; everyone's only with a live key made for it.
    fn scope(&self, for_everyone: bool) -> Result<ListScope, Problem> {
        let Caller { merchant, livemode, scopes, .. } = self.caller;
        if !for_everyone {
            return Ok(ListScope::Merchant { merchant_id: merchant.clone(), livemode: *livemode });
        }
        if *livemode && scopes.contains(&Scope::ListsAll) {
            return Ok(ListScope::All);
        }
        let scope = Scope::ListsAll.as_str();
        let detail = format!("`\"scope\": \"all\"` needs a live API key with the scope `{scope}`.");
        Err(Problem::new(Kind::Forbidden, detail))
    }

    /// The value of the list's kind in a transaction of the caller's own.
    async fn of_transaction(&self, id: &str) -> Result<String, Problem> {
        let (_, known) = stored::own(self.app, self.caller, id).await?;
        let transaction = stored::transaction(self.app, &known.entry).await?;
        let kind = self.list.kind;
        let read = value_in(&transaction, kind)
            .ok_or_else(|| Flaw::new("conflict", format!("has nothing in it for a list of kind {kind}")))
            .and_then(|text| canonical(kind, text));
        let mut errors = Errors::default();
        errors.keep("/transaction_id", read).ok_or_else(|| errors.into_problem())
    }
}

fn canonical(kind: ListKind, text: &str) -> Result<String, Flaw> {
    let value = ListValue::parse(kind, text);
    value
        .map(|value| value.to_string())
        .map_err(|error| Flaw::new("format", format!("has to be {}", error.expected())))
}

fn expiry(text: &str, now_us: i64) -> Result<i64, Flaw> {
    let time: jiff::Timestamp = text.parse().map_err(|_| {
        Flaw::new("format", "has to be a time with its zone (RFC 3339), such as 2027-01-31T00:00:00Z")
    })?;
    let us = time.as_microsecond();
    (us > now_us)
        .then_some(us)
        .ok_or_else(|| Flaw::new("range", "is past: an entry has to expire later than now"))
}

/// Whether a transaction has one value of the kind.
const fn in_transactions(kind: ListKind) -> bool {
    match kind {
        ListKind::Card | ListKind::Bin | ListKind::Ip | ListKind::Email | ListKind::Device => true,
        ListKind::Country | ListKind::Text => false,
    }
}

fn value_in(transaction: &Transaction, kind: ListKind) -> Option<&str> {
    match kind {
        ListKind::Card => Some(transaction.card.token.as_str()),
        ListKind::Bin => Some(&transaction.card.bin),
        ListKind::Ip => transaction.device.ip.as_deref(),
        ListKind::Email => transaction.customer.email.as_deref(),
        ListKind::Device => transaction.device.id.as_deref(),
        ListKind::Country | ListKind::Text => None,
    }
}
