//! Who pays, from what device, and where.

use std::net::IpAddr;

use events::countries::is_country;
use events::{Address, Customer, Device, Location};

use crate::pan::{Pan, brand, luhn};

use super::errors::{Errors, Flaw};
use super::json::{Object, Raw};
use super::text::{FreeText, card_number_in_text, holds_digits_of};

const CUSTOMER_ID: FreeText = FreeText { chars_max: 128 };
const DEVICE_ID: FreeText = FreeText { chars_max: 128 };
const USER_AGENT: FreeText = FreeText { chars_max: 512 };
const CITY: FreeText = FreeText { chars_max: 128 };
const POSTAL_CODE: FreeText = FreeText { chars_max: 16 };
const EMAIL: FreeText = FreeText { chars_max: 254 };

pub(super) fn customer(object: &mut Object<'_>, own: Option<&Pan>, errors: &mut Errors) -> Customer {
    let Some(mut customer) = object.take_object("customer", "/customer", errors) else {
        return Customer::default();
    };
    let read = Customer {
        id: customer.take("id").and_then(|raw| errors.keep("/customer/id", CUSTOMER_ID.read(raw, own))),
        email: customer.take("email").and_then(|raw| errors.keep("/customer/email", email(raw, own))),
        phone: customer.take("phone").and_then(|raw| errors.keep("/customer/phone", phone(raw, own))),
    };
    customer.finish(errors);
    read
}

pub(super) fn device(object: &mut Object<'_>, own: Option<&Pan>, errors: &mut Errors) -> Device {
    let Some(mut device) = object.take_object("device", "/device", errors) else {
        return Device::default();
    };
    let read = Device {
        id: device.take("id").and_then(|raw| errors.keep("/device/id", DEVICE_ID.read(raw, own))),
        ip: device.take("ip").and_then(|raw| errors.keep("/device/ip", ip(raw))),
        user_agent: device
            .take("user_agent")
            .and_then(|raw| errors.keep("/device/user_agent", USER_AGENT.read(raw, own))),
    };
    device.finish(errors);
    read
}

/// Where the fields of an address stand.
pub(super) struct AddressPlaces {
    name: &'static str,
    pointer: &'static str,
    country: &'static str,
    city: &'static str,
    postal_code: &'static str,
}

pub(super) const BILLING: AddressPlaces = AddressPlaces {
    name: "billing",
    pointer: "/billing",
    country: "/billing/country",
    city: "/billing/city",
    postal_code: "/billing/postal_code",
};

pub(super) const SHIPPING: AddressPlaces = AddressPlaces {
    name: "shipping",
    pointer: "/shipping",
    country: "/shipping/country",
    city: "/shipping/city",
    postal_code: "/shipping/postal_code",
};

pub(super) fn address(
    object: &mut Object<'_>,
    places: &AddressPlaces,
    own: Option<&Pan>,
    errors: &mut Errors,
) -> Address {
    let Some(mut address) = object.take_object(places.name, places.pointer, errors) else {
        return Address::default();
    };
    let read = Address {
        country: address.take("country").and_then(|raw| errors.keep(places.country, country(raw))),
        city: address.take("city").and_then(|raw| errors.keep(places.city, CITY.read(raw, own))),
        postal_code: address
            .take("postal_code")
            .and_then(|raw| errors.keep(places.postal_code, POSTAL_CODE.read(raw, own))),
    };
    address.finish(errors);
    read
}

pub(super) fn location(object: &mut Object<'_>, errors: &mut Errors) -> Option<Location> {
    let mut location = object.take_object("location", "/location", errors)?;
    let country = location.take("country").and_then(|raw| errors.keep("/location/country", country(raw)));
    let mut degrees = |name, pointer, most: f64, errors: &mut Errors| {
        let Some(raw) = location.take(name) else {
            errors.missing(pointer);
            return None;
        };
        let read = raw.number().and_then(|text| {
            let value = text.parse::<f64>().ok().filter(|value| value.abs() <= most);
            value.ok_or_else(|| Flaw::new("range", format!("has to be between -{most} and {most} degrees")))
        });
        errors.keep(pointer, read)
    };
    let lat = degrees("lat", "/location/lat", 90.0, errors);
    let lon = degrees("lon", "/location/lon", 180.0, errors);
    location.finish(errors);
    Some(Location { country, lat: lat?, lon: lon? })
}

fn country(raw: Raw<'_>) -> Result<String, Flaw> {
    let text = raw.text()?;
    if is_country(&text) {
        Ok(text.into_owned())
    } else {
        Err(Flaw::new("country", "has to be an ISO 3166-1 alpha-2 code in upper case, such as DE"))
    }
}

fn ip(raw: Raw<'_>) -> Result<String, Flaw> {
    let address: IpAddr =
        raw.text()?.parse().map_err(|_| Flaw::new("format", "has to be an IPv4 or IPv6 address"))?;
    Ok(address.to_canonical().to_string())
}

/// Lower-cased. Only what no mail system accepts is refused: whether the mailbox exists is not known here.
fn email(raw: Raw<'_>, own: Option<&Pan>) -> Result<String, Flaw> {
    let text = raw.text()?;
    EMAIL.check(&text, own)?;
    let well_formed = text.rsplit_once('@').is_some_and(|(local, domain)| {
        (1..=64).contains(&local.len())
            && !local.contains(['@', ' ', '<', '>', ',', ';'])
            && domain.contains('.')
            && domain.split('.').all(|label| {
                (1..=63).contains(&label.len())
                    && !label.starts_with('-')
                    && !label.ends_with('-')
                    && label.chars().all(|c| c.is_alphanumeric() || c == '-')
            })
    });
    if well_formed {
        Ok(text.to_lowercase())
    } else {
        Err(Flaw::new("format", "has to be an e-mail address, such as jane@shop.test"))
    }
}

/// E.164: a plus and 7 to 15 digits, separators taken out. A card number of 16 digits is too long; only
/// those of 14 and 15 digits could pass for a telephone number.
fn phone(raw: Raw<'_>, own: Option<&Pan>) -> Result<String, Flaw> {
    let text = raw.text()?;
    let format = || {
        Flaw::new(
            "format",
            "has to be an international number: a plus and 7 to 15 digits, such as +4930123456",
        )
    };
    let Some(rest) = text.trim().strip_prefix('+') else { return Err(format()) };
    let digits: String = rest.chars().filter(|c| !matches!(c, ' ' | '-' | '.' | '(' | ')')).collect();
    if !(7..=15).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format());
    }
    let short_card = match brand(digits.as_bytes()) {
        "amex" => digits.len() == 15,
        "diners" => digits.len() == 14,
        _ => false,
    };
    if (short_card && luhn(digits.as_bytes())) || own.is_some_and(|pan| holds_digits_of(&digits, pan)) {
        return Err(card_number_in_text());
    }
    Ok(format!("+{digits}"))
}
