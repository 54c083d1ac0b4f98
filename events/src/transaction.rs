//! A card transaction as the gateway accepted it: validated, tokenised, without card number or CVV.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{AmountMinor, CardToken, Currency, MerchantId, Message, TransactionId};

/// What a merchant submitted, as it travels on `transactions.created`. Keyed by card token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Transaction {
    /// Derived from the merchant and the idempotency key.
    pub id: TransactionId,
    /// Who submitted it.
    pub merchant_id: MerchantId,
    /// When the gateway accepted it: microseconds since the Unix epoch, UTC.
    pub accepted_at_us: i64,
    /// `false` for transactions under a test key.
    pub livemode: bool,
    /// The amount in the currency's minor unit.
    pub amount_minor: AmountMinor,
    /// ISO 4217.
    pub currency: Currency,
    /// The amount in minor units of the reporting currency; absent when no rate is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reporting_amount_minor: Option<i64>,
    /// The tokenised card.
    pub card: Card,
    /// Who pays.
    #[serde(default, skip_serializing_if = "Customer::is_empty")]
    pub customer: Customer,
    /// What they pay from.
    #[serde(default, skip_serializing_if = "Device::is_empty")]
    pub device: Device,
    /// Where the card's statements go.
    #[serde(default, skip_serializing_if = "Address::is_empty")]
    pub billing: Address,
    /// Where the goods go.
    #[serde(default, skip_serializing_if = "Address::is_empty")]
    pub shipping: Address,
    /// Where the payment is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<Location>,
    /// ISO 18245 merchant category code, four digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mcc: Option<String>,
    /// The point of sale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal_id: Option<String>,
    /// The merchant's own key and value pairs, bounded by the gateway.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
    /// What a documented test card asks for; only ever set when `livemode` is `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_behaviour: Option<TestBehaviour>,
    /// The idempotency key it came under, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// Keyed hash of the request body, to tell a retry from another request under the same key.
    pub request_fingerprint: String,
}

/// A card without its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Card {
    /// Stands for the card number in every window, topic and table.
    pub token: CardToken,
    /// The first six or eight digits (the issuer).
    pub bin: String,
    /// The last four digits.
    pub last4: String,
    /// `visa`, `mastercard`, `amex`, `discover`, `jcb`, `diners`, `unionpay`, `mir` or `unknown`.
    pub brand: String,
    /// Month of expiry, 1 to 12.
    pub exp_month: u8,
    /// Year of expiry, four digits.
    pub exp_year: u16,
}

impl Card {
    /// How the card is shown to people: `411111••••••1111`.
    #[must_use]
    pub fn masked(&self) -> String {
        format!("{}••••••{}", self.bin.get(..6).unwrap_or(&self.bin), self.last4)
    }
}

/// The paying customer, as the merchant knows them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Customer {
    /// The merchant's id of the customer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Lower-cased e-mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// Telephone number, digits with a leading `+`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
}

/// The device the payment was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// A fingerprint or other stable id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// IPv4 or IPv6 address in its canonical form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// The browser's `User-Agent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

/// A postal address, as far as scoring needs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// ISO 3166-1 alpha-2, upper case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// City.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub city: Option<String>,
    /// Postal code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
}

/// A place on Earth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Location {
    /// ISO 3166-1 alpha-2, upper case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Degrees north, -90 to 90.
    #[serde(deserialize_with = "crate::number::exact::deserialize")]
    pub lat: f64,
    /// Degrees east, -180 to 180.
    #[serde(deserialize_with = "crate::number::exact::deserialize")]
    pub lon: f64,
}

/// What a documented test card number asks scoring to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TestBehaviour {
    /// 4000 0000 0000 0002.
    Decline,
    /// 4100 0000 0000 0019: blocked as fraudulent.
    Block,
    /// 4000 0000 0000 9235.
    ElevatedRisk,
}

impl TestBehaviour {
    /// The text that rules compare `test_behaviour` with.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decline => "decline",
            Self::Block => "block",
            Self::ElevatedRisk => "elevated_risk",
        }
    }
}

macro_rules! is_empty {
    ($($name:ident),*) => {$(
        impl $name {
            /// Whether nothing is known.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                *self == Self::default()
            }
        }
    )*};
}
is_empty!(Customer, Device, Address);

impl Message for Transaction {
    const TYPE: &'static str = "transaction";
    const VERSION: u16 = 1;
}
