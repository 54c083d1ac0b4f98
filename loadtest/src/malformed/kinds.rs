//! The tables of what can be wrong with a request, each with the field that the answer has to name.

use serde_json::{Value, json};

/// How a valid body is spoilt.
#[derive(Debug, Clone)]
pub(super) enum Edit {
    /// Nothing: the headers are wrong.
    None,
    /// This value at this JSON pointer; members on the way exist.
    Set(&'static str, Value),
    /// This text, which `Value` cannot hold, at this pointer.
    Raw(&'static str, &'static str),
    Remove(&'static str),
    /// The number of the request's own card at this pointer, with this between groups of four.
    OwnCard(&'static str, &'static str),
    /// The first so many bytes of the body.
    Cut(usize),
    /// Another body altogether.
    Body(&'static [u8]),
    /// Text put in after the opening brace.
    Insert(&'static str),
    /// Text put in after the closing brace.
    Append(&'static str),
    /// Blanks up to this many bytes, before the closing brace.
    Pad(usize),
}

/// How the headers are spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Header {
    Good,
    ContentType(&'static str),
    Key(&'static str),
    KeyOfLength(usize),
}

/// One way a request is wrong.
#[derive(Debug, Clone)]
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) edit: Edit,
    pub(super) header: Header,
    /// Any of them has to be named. The empty pointer is the body as a whole.
    pub(super) pointers: &'static [&'static str],
    /// Or this header.
    pub(super) names_header: Option<&'static str>,
}

fn kind(name: &'static str, edit: Edit, pointers: &'static [&'static str]) -> Kind {
    Kind { name, edit, header: Header::Good, pointers, names_header: None }
}

fn set(name: &'static str, pointer: &'static [&'static str; 1], value: Value) -> Kind {
    kind(name, Edit::Set(pointer[0], value), pointer)
}

fn header(name: &'static str, header: Header, names_header: &'static str) -> Kind {
    Kind { name, edit: Edit::None, header, pointers: &[], names_header: Some(names_header) }
}

/// What can be wrong in both forms.
pub(super) fn common() -> Vec<Kind> {
    [bodies(), headers(), money(), parties(), places(), extras(), card_numbers_in_text()].concat()
}

fn bodies() -> Vec<Kind> {
    const WHOLE: &[&str] = &[""];
    vec![
        kind("body_empty", Edit::Body(b""), WHOLE),
        kind("body_not_json", Edit::Body(b"amount=100&currency=USD"), WHOLE),
        kind("body_truncated", Edit::Cut(40), WHOLE),
        kind("body_null", Edit::Body(b"null"), WHOLE),
        kind("body_number", Edit::Body(b"42"), WHOLE),
        kind("body_text", Edit::Body(b"\"amount\""), WHOLE),
        kind("body_list", Edit::Body(b"[{\"amount\":1}]"), WHOLE),
        kind("body_not_utf8", Edit::Body(b"{\"amount\":\"\xff\xfe\"}"), WHOLE),
        kind("body_with_trailing_text", Edit::Append(" true"), WHOLE),
        kind("body_with_comment", Edit::Insert("/* free */"), WHOLE),
        kind("body_too_large", Edit::Pad(70 * 1024), WHOLE),
        kind("field_twice", Edit::Insert(r#""currency":"USD","#), &["/currency"]),
        kind("field_unknown", Edit::Insert(r#""colour":"red","#), &["/colour"]),
        kind("field_unknown_and_deep", Edit::Insert(r#""deep":[[[[[[[[{"a":[[[]]]}]]]]]]]],"#), &["/deep"]),
    ]
}

fn headers() -> Vec<Kind> {
    vec![
        header("content_type_text", Header::ContentType("text/plain"), "content-type"),
        header("content_type_form", Header::ContentType("application/x-www-form-urlencoded"), "content-type"),
        header("content_type_xml", Header::ContentType("application/xml"), "content-type"),
        header("key_header_empty", Header::Key(""), "idempotency-key"),
        header("key_header_too_long", Header::KeyOfLength(256), "idempotency-key"),
        header("key_header_not_ascii", Header::Key("schl\u{fc}ssel"), "idempotency-key"),
        header("key_header_card_number", Header::Key("order 5555 5555 5555 4444"), "idempotency-key"),
    ]
}

fn money() -> Vec<Kind> {
    vec![
        kind("amount_missing", Edit::Remove("/amount"), &["/amount"]),
        set("amount_null", &["/amount"], Value::Null),
        set("amount_zero", &["/amount"], json!(0)),
        set("amount_negative", &["/amount"], json!(-500)),
        set("amount_boolean", &["/amount"], json!(true)),
        set("amount_object", &["/amount"], json!({"value": 5})),
        set("amount_word", &["/amount"], json!("ten")),
        kind("amount_exponent", Edit::Raw("/amount", "1e2"), &["/amount"]),
        kind("amount_beyond_numbers", Edit::Raw("/amount", "99999999999999999999999999"), &["/amount"]),
        kind("currency_missing", Edit::Remove("/currency"), &["/currency"]),
        set("currency_unknown", &["/currency"], json!("ZZZ")),
        set("currency_lower_case", &["/currency"], json!("usd")),
        set("currency_name", &["/currency"], json!("US Dollar")),
        set("currency_number", &["/currency"], json!(840)),
    ]
}

fn parties() -> Vec<Kind> {
    vec![
        set("customer_text", &["/customer"], json!("anna")),
        set("customer_id_empty", &["/customer/id"], json!("")),
        set("customer_id_number", &["/customer/id"], json!(7)),
        set("customer_unknown_field", &["/customer/nickname"], json!("nan")),
        set("email_without_at", &["/customer/email"], json!("anna.example.com")),
        set("email_without_domain", &["/customer/email"], json!("anna@")),
        set("email_with_space", &["/customer/email"], json!("anna b@example.com")),
        set("phone_letters", &["/customer/phone"], json!("+49CALLME")),
        set("phone_without_plus", &["/customer/phone"], json!("030123456")),
        set("device_list", &["/device"], json!([])),
        set("device_id_control_character", &["/device/id"], json!("dev\u{0}1")),
        set("ip_out_of_range", &["/device/ip"], json!("256.1.1.1")),
        set("ip_host_name", &["/device/ip"], json!("localhost")),
        set("ip_number", &["/device/ip"], json!(2_130_706_433)),
        set("user_agent_control_character", &["/device/user_agent"], json!("curl\u{7}/8")),
    ]
}

fn places() -> Vec<Kind> {
    vec![
        set("billing_text", &["/billing"], json!("Berlin")),
        set("billing_country_name", &["/billing/country"], json!("Germany")),
        set("billing_country_lower_case", &["/billing/country"], json!("de")),
        set("billing_city_number", &["/billing/city"], json!(10)),
        set("shipping_country_unknown", &["/shipping/country"], json!("XX")),
        set("shipping_postal_code_long", &["/shipping/postal_code"], json!("1234567890 12345 67890")),
        set("shipping_unknown_field", &["/shipping/planet"], json!("Mars")),
        set("location_list", &["/location"], json!([52.5, 13.4])),
        set("latitude_out_of_range", &["/location/lat"], json!(90.5)),
        set("latitude_text", &["/location/lat"], json!("52.5")),
        kind("latitude_missing", Edit::Remove("/location/lat"), &["/location/lat"]),
        set("longitude_out_of_range", &["/location/lon"], json!(-180.5)),
        kind("longitude_beyond_numbers", Edit::Raw("/location/lon", "1e999"), &["/location/lon", ""]),
        set("location_country_number", &["/location/country"], json!(276)),
    ]
}

fn extras() -> Vec<Kind> {
    let long = "x".repeat(600);
    let pairs: Value =
        (0..60).map(|i| (format!("k{i}"), json!("v"))).collect::<serde_json::Map<_, _>>().into();
    vec![
        set("mcc_three_digits", &["/mcc"], json!("541")),
        set("mcc_letters", &["/mcc"], json!("54a1")),
        set("mcc_number", &["/mcc"], json!(5411)),
        set("terminal_id_line_break", &["/terminal_id"], json!("trm\n1")),
        set("terminal_id_too_long", &["/terminal_id"], json!(&long)),
        set("terminal_id_object", &["/terminal_id"], json!({})),
        set("metadata_text", &["/metadata"], json!("blue")),
        set("metadata_nested", &["/metadata/nested"], json!({"a": "b"})),
        set("metadata_number", &["/metadata/count"], json!(5)),
        set("metadata_value_too_long", &["/metadata/note"], json!(&long)),
        set("metadata_control_character", &["/metadata/note"], json!("a\u{1b}[31mb")),
        set("metadata_too_many", &["/metadata"], pairs),
        kind(
            "metadata_key_too_long",
            Edit::Set("/metadata", json!({ "y".repeat(41): "v" })),
            &["/metadata/?", "/metadata"],
        ),
        set("deadline_zero", &["/deadline_ms"], json!(0)),
        set("deadline_negative", &["/deadline_ms"], json!(-5)),
        set("deadline_fraction", &["/deadline_ms"], json!(1.5)),
        set("deadline_text", &["/deadline_ms"], json!("1s")),
        set("deadline_too_long", &["/deadline_ms"], json!(86_400_000)),
        set("key_empty", &["/idempotency_key"], json!("")),
        set("key_number", &["/idempotency_key"], json!(5)),
        set("key_too_long", &["/idempotency_key"], json!(&long)),
        set("key_other_than_header", &["/idempotency_key"], json!("another-key")),
    ]
}

/// The worst mistake of all: it would be stored as it is.
fn card_numbers_in_text() -> Vec<Kind> {
    vec![
        kind("card_number_in_metadata", Edit::OwnCard("/metadata/note", ""), &["/metadata/note"]),
        kind("card_number_spaced_in_metadata", Edit::OwnCard("/metadata/note", " "), &["/metadata/note"]),
        kind("card_number_in_customer_id", Edit::OwnCard("/customer/id", ""), &["/customer/id"]),
        kind("card_number_in_device_id", Edit::OwnCard("/device/id", "-"), &["/device/id"]),
        kind("card_number_in_user_agent", Edit::OwnCard("/device/user_agent", "."), &["/device/user_agent"]),
        kind("card_number_in_terminal_id", Edit::OwnCard("/terminal_id", ""), &["/terminal_id"]),
        kind("card_number_in_city", Edit::OwnCard("/billing/city", " "), &["/billing/city"]),
        set("another_card_number_in_metadata", &["/metadata/note"], json!("paid by 4111 1111 1111 1111")),
    ]
}

/// What can be wrong in the canonical form only. `year` is the current one.
pub(super) fn canonical(year: i64) -> Vec<Kind> {
    let expiry: &[&str] = &["/card/exp_year", "/card/exp_month"];
    vec![
        set("amount_fraction", &["/amount"], json!(10.5)),
        set("amount_text", &["/amount"], json!("1050")),
        kind("card_missing", Edit::Remove("/card"), &["/card"]),
        set("card_text", &["/card"], json!("visa")),
        set("card_unknown_field", &["/card/colour"], json!("gold")),
        kind("card_number_missing", Edit::Remove("/card/number"), &["/card/number"]),
        set("card_number_as_number", &["/card/number"], json!(4_242_424_242_424_242_i64)),
        set("card_number_bad_luhn", &["/card/number"], json!("4242424242424241")),
        set("card_number_letters", &["/card/number"], json!("4242x4242y4242z4242")),
        set("card_number_short", &["/card/number"], json!("42424242")),
        set("card_number_long", &["/card/number"], json!("424242424242424242424242")),
        set("card_number_zeros", &["/card/number"], json!("0000000000000000")),
        kind("exp_month_missing", Edit::Remove("/card/exp_month"), &["/card/exp_month"]),
        set("exp_month_zero", &["/card/exp_month"], json!(0)),
        set("exp_month_thirteen", &["/card/exp_month"], json!(13)),
        set("exp_month_word", &["/card/exp_month"], json!("May")),
        set("exp_month_fraction", &["/card/exp_month"], json!(1.5)),
        kind("exp_year_missing", Edit::Remove("/card/exp_year"), &["/card/exp_year"]),
        set("exp_year_three_digits", &["/card/exp_year"], json!(203)),
        set("exp_year_far_ahead", &["/card/exp_year"], json!(year + 60)),
        set("exp_year_object", &["/card/exp_year"], json!({})),
        kind("card_expired", Edit::Set("/card/exp_year", json!(year - 1)), expiry),
        set("cvc_two_digits", &["/card/cvc"], json!("12")),
        set("cvc_five_digits", &["/card/cvc"], json!("12345")),
        set("cvc_letters", &["/card/cvc"], json!("abc")),
        set("cvc_number", &["/card/cvc"], json!(123)),
        kind("cvc_and_cvv", Edit::Set("/card/cvv", json!("123")), &["/card/cvv", "/card/cvc"]),
    ]
}

/// What can be wrong in the short form only. `year` is the current one.
pub(super) fn short(year: i64) -> Vec<Kind> {
    let expiry: &[&str] = &["/expiry_year", "/expiry_month"];
    vec![
        kind("amount_too_many_decimals", Edit::Raw("/amount", "100.505"), &["/amount"]),
        kind("amount_below_a_cent", Edit::Raw("/amount", "0.001"), &["/amount"]),
        kind("amount_comma", Edit::Set("/amount", json!("100,50")), &["/amount"]),
        kind("amount_empty_text", Edit::Set("/amount", json!("")), &["/amount"]),
        kind("amount_not_a_number", Edit::Set("/amount", json!("NaN")), &["/amount"]),
        kind("amount_signed", Edit::Set("/amount", json!("+5")), &["/amount"]),
        kind("card_number_missing", Edit::Remove("/card_number"), &["/card_number"]),
        set("card_number_as_number", &["/card_number"], json!(4_242_424_242_424_242_i64)),
        set("card_number_bad_luhn", &["/card_number"], json!("4242424242424241")),
        set("card_number_letters", &["/card_number"], json!("4242x4242y4242z4242")),
        set("card_number_short", &["/card_number"], json!("42424242")),
        kind("expiry_month_missing", Edit::Remove("/expiry_month"), &["/expiry_month"]),
        set("expiry_month_zero", &["/expiry_month"], json!(0)),
        set("expiry_month_thirteen", &["/expiry_month"], json!(13)),
        kind("expiry_year_missing", Edit::Remove("/expiry_year"), &["/expiry_year"]),
        set("expiry_year_three_digits", &["/expiry_year"], json!(203)),
        kind("card_expired", Edit::Set("/expiry_year", json!(year - 1)), expiry),
        set("cvv_two_digits", &["/cvv"], json!("12")),
        set("cvv_letters", &["/cvv"], json!("abc")),
        kind("cvc_and_cvv", Edit::Set("/cvc", json!("123")), &["/cvv", "/cvc"]),
        kind("canonical_card", Edit::Set("/card", json!({"number": "4242424242424242"})), &["/card"]),
    ]
}
