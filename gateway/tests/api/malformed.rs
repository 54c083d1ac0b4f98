//! Every malformed request is a 4xx that names what is wrong, and none reaches the log.

use axum::http::Request;
use serde_json::{Value, json};

use crate::support::{Gate, canonical, changed, complete, from, post, raw, short};

/// What is changed in a complete canonical body, and the error that follows.
type WrongField = (&'static str, Option<Value>, (&'static str, &'static str));

fn wrong_fields() -> Vec<WrongField> {
    let pairs: serde_json::Map<String, Value> = (0..51).map(|i| (format!("k{i}"), json!("v"))).collect();
    vec![
        ("/amount", None, ("/amount", "required")),
        ("/amount", Some(json!(null)), ("/amount", "required")),
        ("/amount", Some(json!("10050")), ("/amount", "type")),
        ("/amount", Some(json!(100.5)), ("/amount", "format")),
        ("/amount", Some(json!(0)), ("/amount", "range")),
        ("/amount", Some(json!(-1)), ("/amount", "range")),
        ("/amount", Some(json!(1_000_000_000_000_i64)), ("/amount", "range")),
        ("/amount", Some(json!(true)), ("/amount", "type")),
        ("/amount", Some(json!([1])), ("/amount", "type")),
        ("/currency", None, ("/currency", "required")),
        ("/currency", Some(json!("usd")), ("/currency", "currency")),
        ("/currency", Some(json!("XXX")), ("/currency", "currency")),
        ("/currency", Some(json!("DOLLARS")), ("/currency", "currency")),
        ("/currency", Some(json!(840)), ("/currency", "type")),
        ("/card", None, ("/card", "required")),
        ("/card", Some(json!("4111111111111111")), ("/card", "type")),
        ("/card/number", None, ("/card/number", "required")),
        ("/card/number", Some(json!(4_111_111_111_111_111_u64)), ("/card/number", "type")),
        ("/card/number", Some(json!("4111111111111112")), ("/card/number", "luhn")),
        ("/card/number", Some(json!("41111111111")), ("/card/number", "format")),
        ("/card/number", Some(json!("41111111111111111111")), ("/card/number", "format")),
        ("/card/number", Some(json!("4111x111y1111z11")), ("/card/number", "format")),
        ("/card/number", Some(json!("")), ("/card/number", "format")),
        ("/card/number", Some(json!("0000000000000000")), ("/card/number", "luhn")),
        ("/card/exp_month", None, ("/card/exp_month", "required")),
        ("/card/exp_month", Some(json!(0)), ("/card/exp_month", "range")),
        ("/card/exp_month", Some(json!(13)), ("/card/exp_month", "range")),
        ("/card/exp_month", Some(json!(1.5)), ("/card/exp_month", "range")),
        ("/card/exp_month", Some(json!("June")), ("/card/exp_month", "range")),
        ("/card/exp_year", None, ("/card/exp_year", "required")),
        ("/card/exp_year", Some(json!(2020)), ("/card/exp_year", "expired")),
        ("/card/exp_year", Some(json!(20)), ("/card/exp_year", "expired")),
        ("/card/exp_year", Some(json!(204)), ("/card/exp_year", "format")),
        ("/card/exp_year", Some(json!(2999)), ("/card/exp_year", "range")),
        ("/card/cvc", None, ("/card/cvc", "required")),
        ("/card/cvc", Some(json!("12")), ("/card/cvc", "format")),
        ("/card/cvc", Some(json!("1234")), ("/card/cvc", "format")),
        ("/card/cvc", Some(json!("12a")), ("/card/cvc", "format")),
        ("/card/cvc", Some(json!(123)), ("/card/cvc", "type")),
        ("/card/cvv", Some(json!("123")), ("/card/cvv", "conflict")),
        ("/card/pin", Some(json!("1234")), ("/card/pin", "unknown_field")),
        ("/customer", Some(json!([])), ("/customer", "type")),
        ("/customer/id", Some(json!("")), ("/customer/id", "format")),
        ("/customer/id", Some(json!("x".repeat(129))), ("/customer/id", "too_long")),
        ("/customer/id", Some(json!("a\u{0}b")), ("/customer/id", "format")),
        ("/customer/id", Some(json!("4242 4242 4242 4242")), ("/customer/id", "card_number_in_text")),
        ("/customer/email", Some(json!("jane")), ("/customer/email", "format")),
        ("/customer/email", Some(json!("jane@localhost")), ("/customer/email", "format")),
        (
            "/customer/email",
            Some(json!("4111111111111111@a.test")),
            ("/customer/email", "card_number_in_text"),
        ),
        ("/customer/phone", Some(json!("030 1234")), ("/customer/phone", "format")),
        ("/customer/phone", Some(json!("+378282246310005")), ("/customer/phone", "card_number_in_text")),
        ("/customer/vip", Some(json!(true)), ("/customer/vip", "unknown_field")),
        ("/device/ip", Some(json!("300.1.1.1")), ("/device/ip", "format")),
        ("/device/user_agent", Some(json!("x".repeat(513))), ("/device/user_agent", "too_long")),
        ("/billing/country", Some(json!("de")), ("/billing/country", "country")),
        ("/shipping/country", Some(json!("XX")), ("/shipping/country", "country")),
        ("/billing/street", Some(json!("Main")), ("/billing/street", "unknown_field")),
        ("/location/lat", Some(json!(90.1)), ("/location/lat", "range")),
        ("/location/lon", Some(json!(-180.5)), ("/location/lon", "range")),
        ("/location/lon", None, ("/location/lon", "required")),
        ("/mcc", Some(json!("54111")), ("/mcc", "format")),
        ("/mcc", Some(json!(5411)), ("/mcc", "type")),
        ("/terminal_id", Some(json!("x".repeat(65))), ("/terminal_id", "too_long")),
        ("/metadata", Some(json!("x")), ("/metadata", "type")),
        ("/metadata", Some(Value::Object(pairs)), ("/metadata", "too_many")),
        ("/metadata/order", Some(json!(7)), ("/metadata/order", "type")),
        ("/metadata/order", Some(json!("x".repeat(501))), ("/metadata/order", "too_long")),
        (
            "/metadata/order",
            Some(json!("pan 4111-1111-1111-1111")),
            ("/metadata/order", "card_number_in_text"),
        ),
        ("/metadata/4111111111111111", Some(json!("x")), ("/metadata/?", "card_number_in_text")),
        ("/deadline_ms", Some(json!(0)), ("/deadline_ms", "range")),
        ("/deadline_ms", Some(json!(60_001)), ("/deadline_ms", "range")),
        ("/deadline_ms", Some(json!(1.5)), ("/deadline_ms", "range")),
        ("/deadline_ms", Some(json!("100")), ("/deadline_ms", "type")),
        ("/idempotency_key", Some(json!("")), ("/idempotency_key", "format")),
        ("/idempotency_key", Some(json!("x".repeat(256))), ("/idempotency_key", "format")),
        ("/idempotency_key", Some(json!("clé")), ("/idempotency_key", "format")),
        ("/idempotency_key", Some(json!("4111111111111111")), ("/idempotency_key", "card_number_in_text")),
        ("/amont", Some(json!(1)), ("/amont", "unknown_field")),
        ("/5555555555554444", Some(json!(1)), ("/?", "unknown_field")),
    ]
}

#[tokio::test]
async fn every_wrong_field_is_named_and_nothing_reaches_the_log() {
    let gate = Gate::open().await;
    assert!(wrong_fields().len() >= 40);
    for (pointer, value, expected) in wrong_fields() {
        let body = changed(complete(), pointer, value.clone());
        let answer = gate.post("/v1/transactions", &body).await;
        let errors = answer.problem(422, "validation");
        let named = [(expected.0.to_owned(), expected.1.to_owned())];
        assert_eq!(errors, named, "{pointer} = {value:?}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("411111"), "{pointer}: {answer:?}");
    }
    assert_eq!(gate.created().await.len(), 0);
    assert_eq!(gate.post("/v1/transactions", &complete()).await.status, 201, "unchanged, it is valid");
}

#[tokio::test]
async fn the_short_form_names_its_own_fields() {
    let gate = Gate::open().await;
    for (pointer, value, code) in [
        ("/amount", Some(json!(0.001)), "precision"),
        ("/amount", Some(json!("100.500")), "precision"),
        ("/amount", Some(json!("1e2")), "format"),
        ("/amount", Some(json!("NaN")), "format"),
        ("/amount", Some(json!("1,50")), "format"),
        ("/amount", Some(json!("-1.50")), "range"),
        ("/amount", Some(json!("0.00")), "range"),
        ("/amount", Some(json!(1e300)), "format"),
        ("/amount", Some(json!("9".repeat(40))), "range"),
        ("/amount", Some(json!({})), "type"),
        ("/currency", Some(json!("ABC")), "currency"),
        ("/card_number", None, "required"),
        ("/card_number", Some(json!("4111111111111113")), "luhn"),
        ("/expiry_month", Some(json!(13)), "range"),
        ("/expiry_year", Some(json!(2025)), "expired"),
        ("/expiry_year", None, "required"),
        ("/cvv", Some(json!("12345")), "format"),
        ("/cvv", None, "required"),
        ("/cvc", Some(json!("123")), "conflict"),
        ("/card", Some(json!({})), "unknown_field"),
    ] {
        let answer = gate.post("/transaction", &changed(short(), pointer, value.clone())).await;
        let named = if code == "conflict" { "/cvv" } else { pointer };
        assert_eq!(
            answer.problem(422, "validation"),
            [(named.to_owned(), code.to_owned())],
            "{pointer} = {value:?}"
        );
    }
    let yen = changed(short(), "/currency", Some("JPY".into()));
    assert_eq!(
        gate.post("/transaction", &yen).await.problem(422, "validation"),
        [("/amount".to_owned(), "precision".to_owned())]
    );
    assert_eq!(gate.created().await.len(), 0);
}

#[tokio::test]
async fn all_errors_are_listed_at_once() {
    let gate = Gate::open().await;
    let body = json!({
        "amount": "x", "currency": "??", "card": {"number": "1", "exp_month": 99, "cvc": "x"},
        "device": {"ip": "x"}, "deadline_ms": -1, "surprise": 1,
    });
    let answer = gate.post("/v1/transactions", &body).await;
    let mut pointers: Vec<_> =
        answer.problem(422, "validation").into_iter().map(|(pointer, _)| pointer).collect();
    pointers.sort();
    assert_eq!(
        pointers,
        [
            "/amount",
            "/card/cvc",
            "/card/exp_month",
            "/card/exp_year",
            "/card/number",
            "/currency",
            "/deadline_ms",
            "/device/ip",
            "/surprise"
        ]
    );
    let mut empty = gate.post("/v1/transactions", &json!({})).await.json();
    assert!(empty["request_id"].is_string());
    empty["request_id"] = "[id]".into();
    insta::assert_json_snapshot!(empty, @r#"
    {
      "detail": "3 fields are missing or wrong: see `errors`. Nothing was accepted.",
      "errors": [
        {
          "code": "required",
          "message": "is required",
          "pointer": "/currency"
        },
        {
          "code": "required",
          "message": "is required",
          "pointer": "/amount"
        },
        {
          "code": "required",
          "message": "is required",
          "pointer": "/card"
        }
      ],
      "request_id": "[id]",
      "status": 422,
      "title": "Fields are missing or wrong",
      "type": "urn:paystream:problem:validation"
    }
    "#);
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_a_400_that_says_where() {
    let gate = Gate::open().await;
    let valid = canonical().to_string();
    for (body, code) in [
        (String::new(), "json_syntax"),
        ("{".to_owned(), "json_syntax"),
        ("not json".to_owned(), "type"),
        ("null".to_owned(), "type"),
        ("[]".to_owned(), "type"),
        ("\"4111111111111111\"".to_owned(), "type"),
        ("4111111111111111".to_owned(), "type"),
        (valid.replace("10050", "NaN"), "json_syntax"),
        (valid.replace("10050", "Infinity"), "json_syntax"),
        (valid.replace("10050", "010050"), "json_syntax"),
        (valid.replace("10050", "+1"), "json_syntax"),
        (valid.replace("10050", "1_0"), "json_syntax"),
        (valid.replace('}', ""), "json_syntax"),
        (format!("{valid}{valid}"), "json_syntax"),
        (valid.replace("\"USD\"", "'USD'"), "json_syntax"),
        (
            format!("{{{}}}", (0..200).map(|i| format!("\"k{i}\":1")).collect::<Vec<_>>().join(",")),
            "too_many",
        ),
        ("[".repeat(20_000), "type"),
        (format!("{{\"a\":{}", "[".repeat(20_000)), "json_syntax"),
    ] {
        let answer = gate.send(raw("/v1/transactions", body.clone(), &[])).await;
        let errors = answer.problem(400, "malformed-request");
        assert_eq!(errors, [(String::new(), code.to_owned())], "{body:.60}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("4111111111111111"));
    }
    let not_utf8 = [&valid.as_bytes()[..valid.len() - 1], &[0xff, b'}']].concat();
    gate.send(raw("/v1/transactions", not_utf8, &[])).await.problem(400, "malformed-request");
    assert_eq!(gate.created().await.len(), 0);
}

#[tokio::test]
async fn a_field_that_is_there_twice_is_refused() {
    let gate = Gate::open().await;
    for (body, pointer) in [
        (canonical().to_string().replacen('{', r#"{"amount":1,"#, 1), "/amount"),
        (canonical().to_string().replace(r#""number":"#, r#""number":"x","number":"#), "/card/number"),
        (canonical().to_string().replacen('{', r#"{"metadata":{"a":"1","a":"2"},"#, 1), "/metadata/a"),
        (canonical().to_string().replacen('{', r#"{"\u0061mount":1,"#, 1), "/amount"),
    ] {
        let errors = gate.send(raw("/v1/transactions", body, &[])).await.problem(422, "validation");
        assert!(errors.contains(&(pointer.to_owned(), "duplicate_field".to_owned())), "{errors:?}");
    }
    assert_eq!(gate.created().await.len(), 0);
}

#[tokio::test]
async fn amex_has_a_code_of_four_digits() {
    let gate = Gate::open().await;
    let amex = changed(canonical(), "/card/number", Some("378282246310005".into()));
    let refused = gate.post("/v1/transactions", &amex).await;
    assert_eq!(refused.problem(422, "validation"), [("/card/cvc".to_owned(), "format".to_owned())]);
    let amex = changed(changed(amex, "/card/cvc", None), "/card/cvv", Some("1234".into()));
    assert_eq!(gate.post("/v1/transactions", &amex).await.status, 201);
}

#[tokio::test]
async fn the_requests_own_card_number_is_refused_in_every_other_field() {
    let gate = Gate::open().await;
    // Of no known scheme, so that only the comparison with the request's own number finds it.
    let number = "9999999999999995";
    let body = changed(complete(), "/card/number", Some(number.into()));
    for pointer in [
        "/customer/id",
        "/device/id",
        "/device/user_agent",
        "/terminal_id",
        "/metadata/order",
        "/idempotency_key",
        "/billing/city",
        "/shipping/postal_code",
    ] {
        let errors =
            gate.post("/v1/transactions", &changed(body.clone(), pointer, Some(number.into()))).await;
        assert_eq!(
            errors.problem(422, "validation"),
            [(pointer.to_owned(), "card_number_in_text".to_owned())]
        );
    }
    assert_eq!(gate.created().await.len(), 0);
}

#[tokio::test]
async fn keys_in_headers_are_checked_like_those_in_bodies() {
    let gate = Gate::open().await;
    for (key, code) in [
        (" ".to_owned(), "format"),
        ("x".repeat(256), "format"),
        ("4242424242424242".to_owned(), "card_number_in_text"),
    ] {
        let answer = gate.send(post("/v1/transactions", &canonical(), &[("idempotency-key", &key)])).await;
        let errors = answer.problem(422, "validation");
        assert_eq!(errors, [("Idempotency-Key".to_owned(), code.to_owned())]);
    }
    let both = post("/v1/transactions", &complete(), &[("idempotency-key", "order-2")]);
    let errors = gate.send(both).await.problem(422, "validation");
    assert_eq!(errors, [("/idempotency_key".to_owned(), "conflict".to_owned())]);
    let twice = post("/v1/transactions", &canonical(), &[("idempotency-key", "a"), ("idempotency-key", "b")]);
    gate.send(twice).await.problem(400, "malformed-request");
    let same = post("/v1/transactions", &complete(), &[("idempotency-key", "order-1")]);
    assert_eq!(gate.send(same).await.status, 201);
}

#[tokio::test]
async fn what_is_not_json_or_too_large_or_elsewhere_is_refused_as_such() {
    let gate = Gate::open().await;
    let text = canonical().to_string();
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""] {
        let request = raw("/v1/transactions", text.clone(), &[("content-type", media_type)]);
        gate.send(request).await.problem(415, "unsupported-media-type");
    }
    let zipped = raw("/v1/transactions", text.clone(), &[("content-encoding", "gzip")]);
    gate.send(zipped).await.problem(415, "unsupported-media-type");
    let with_charset =
        raw("/v1/transactions", text.clone(), &[("content-type", "Application/JSON; charset=utf-8")]);
    assert_eq!(gate.send(with_charset).await.status, 201);

    let padded = text.replacen('{', &format!("{{{}", " ".repeat(64 * 1024)), 1);
    for length in [None, Some(padded.len().to_string())] {
        let body = axum::body::Body::from_stream(futures::stream::iter(
            padded.as_bytes().chunks(1_000).map(|c| Ok::<_, std::io::Error>(c.to_vec())).collect::<Vec<_>>(),
        ));
        let headers: Vec<(&str, &str)> = length.iter().map(|l| ("content-length", l.as_str())).collect();
        gate.send(raw("/v1/transactions", body, &headers)).await.problem(413, "body-too-large");
    }
    let broken = axum::body::Body::from_stream(futures::stream::iter([
        Ok(text.as_bytes()[..20].to_vec()),
        Err(std::io::Error::other("gone")),
    ]));
    gate.send(raw("/v1/transactions", broken, &[])).await.problem(400, "malformed-request");

    gate.get("/v2/transactions").await.problem(404, "not-found");
    for path in ["/v1/transactions", "/transaction"] {
        let wrong = gate.get(path).await;
        wrong.problem(405, "method-not-allowed");
        assert_eq!(wrong.header("allow"), Some("POST"));
    }
    let delete = Request::delete("/v1/transactions/x").body(axum::body::Body::empty()).unwrap();
    gate.send(from("127.0.0.1", delete)).await.problem(405, "method-not-allowed");
    assert_eq!(gate.created().await.len(), 1);
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let config = gateway::GatewayConfig { body_deadline_ms: 100, ..crate::support::config() };
    let gate = Gate::with(config).await;
    let endless =
        axum::body::Body::from_stream(futures::stream::pending::<Result<Vec<u8>, std::io::Error>>());
    gate.send(raw("/v1/transactions", endless, &[])).await.problem(408, "request-timeout");
}

#[tokio::test]
async fn a_request_id_is_taken_when_it_is_harmless() {
    let gate = Gate::open().await;
    let sent = post("/v1/transactions", &json!({}), &[("x-request-id", "checkout-7.a_B")]);
    assert_eq!(gate.send(sent).await.header("x-request-id"), Some("checkout-7.a_B"));
    for bad in ["", "a b", "<script>", &"x".repeat(65), "4111111111111111"] {
        let answer = gate.send(post("/v1/transactions", &json!({}), &[("x-request-id", bad)])).await;
        answer.problem(422, "validation");
        assert!(answer.header("x-request-id").unwrap().starts_with("req_"), "{bad}");
    }
}
