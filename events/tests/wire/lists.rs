//! The values of lists in their one form.

use events::{ListKind, ListValue, countries::is_country};

fn written(kind: ListKind, text: &str) -> Option<String> {
    ListValue::parse(kind, text).ok().map(|value| value.to_string())
}

#[test]
fn values_that_mean_the_same_are_written_the_same() {
    for (kind, form, others) in [
        (ListKind::Ip, "10.0.0.1", &["10.0.0.1/32", "::ffff:10.0.0.1", "::ffff:a00:1/128"][..]),
        (ListKind::Ip, "10.0.0.0/8", &["::ffff:10.0.0.0/104"]),
        (ListKind::Ip, "0.0.0.0/0", &["::ffff:0:0/96"]),
        (ListKind::Ip, "2001:db8::1", &["2001:DB8:0:0::1", "2001:db8::1/128"]),
        (ListKind::Ip, "2001:db8::/32", &["2001:0db8:0000::/32"]),
        (ListKind::Bin, "411111", &["411111-411111", "41111100-41111199", "4111110-4111119"]),
        (ListKind::Bin, "2221-2720", &["222100-272099", "22210000-27209999"]),
        (ListKind::Bin, "411111-411112", &["41111100-41111299"]),
        (ListKind::Bin, "40-49", &["4000-4999"]),
        (ListKind::Bin, "00", &["000-009"]),
        (ListKind::Email, "jane@shop.test", &["Jane@Shop.TEST"]),
        (ListKind::Email, "@shop.test", &["@SHOP.test"]),
        (ListKind::Country, "DE", &["de", "De"]),
    ] {
        assert_eq!(written(kind, form).as_deref(), Some(form), "{kind}");
        for other in others {
            assert_eq!(written(kind, other).as_deref(), Some(form), "{kind} {other}");
        }
    }
    assert_eq!(written(ListKind::Text, "As It Is").as_deref(), Some("As It Is"));
}

#[test]
fn what_is_no_value_is_refused_with_what_is_expected_and_not_repeated() {
    for (kind, texts) in [
        (
            ListKind::Card,
            &["4111111111111111", "tok_k1_AB", "", "tok_K1_abababababababababababababababab"][..],
        ),
        (ListKind::Bin, &["4", "411111111", "41111-4111", "42-41", "41x", "41-", "-41", "4 1"]),
        (ListKind::Ip, &["10.0.0.1/8", "10.0.0.0/33", "10.0.0.0/+8", "10.0", "::1/0", "1.2.3.4/", "::/129"]),
        (ListKind::Email, &["jane", "jane@", "a@b@c", "ja ne@shop.test", "@", "a\n@b"]),
        (ListKind::Country, &["UK", "DEU", "", "D", "Deutschland"]),
        (ListKind::Device, &["", "a\tb"]),
        (ListKind::Text, &["", "\u{0}"]),
    ] {
        for text in texts {
            let error = ListValue::parse(kind, text).unwrap_err().to_string();
            assert!(error.starts_with("expected "), "{error}");
            assert!(text.len() < 6 || !error.contains(text), "{error}");
        }
    }
    assert!(written(ListKind::Text, &"x".repeat(256)).is_some());
    assert!(written(ListKind::Text, &"x".repeat(257)).is_none());
    assert!(is_country("NO") && !is_country("no"));
}
