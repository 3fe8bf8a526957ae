use super::*;
use proptest::prelude::*;

fn canonical(text: &str) -> String {
    Quantity::parse(text).expect(text).to_string()
}

#[test]
fn canonical_forms() {
    for (text, wanted) in [
        ("0", "0"),
        ("00", "0"),
        ("0Mi", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("100m", "100m"),
        ("0.1", "100m"),
        (".5", "500m"),
        ("1.", "1."),
        ("1.5", "1500m"),
        ("1.500", "1.500"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("1000", "1k"),
        ("1500", "1500"),
        ("1000000", "1M"),
        ("1024", "1024"),
        ("1Ki", "1Ki"),
        ("1024Ki", "1Mi"),
        ("2048Mi", "2Gi"),
        ("1536Mi", "1536Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("0.5Mi", "512Ki"),
        ("1.1Ki", "1126400m"),
        ("0.3Ki", "307200m"),
        ("0.0001Ki", "102400u"),
        ("12e6", "12e6"),
        ("12E6", "12E6"),
        ("12000e3", "12e6"),
        ("1e-3", "1e-3"),
        ("1E", "1E"),
        ("100E", "100E"),
        ("0.5n", "1n"),
        ("-0.5n", "-1n"),
        ("0.1u", "100n"),
        ("9223372036854775807", "9223372036854775807"),
        ("10Ei", "9223372036854775807"),
        ("-1.5Gi", "-1536Mi"),
        ("0.025Ti", "27487790694400m"),
        ("100000000000000000000", "100E"),
        ("1e21", "1e21"),
    ] {
        assert_eq!(canonical(text), wanted, "{text}");
    }
}

#[test]
fn refusals() {
    for (text, error) in [
        ("", QuantityError::Format),
        ("1x", QuantityError::Format),
        ("--1", QuantityError::Suffix),
        ("1.2.3", QuantityError::Format),
        ("abc", QuantityError::Format),
        ("1 Mi", QuantityError::Format),
        ("1mi", QuantityError::Suffix),
        ("1KI", QuantityError::Format),
        ("1K", QuantityError::Suffix),
        ("1e", QuantityError::Suffix),
        ("1ee3", QuantityError::Suffix),
    ] {
        assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Err(error), "{text}");
    }
}

#[test]
fn values_round_away_from_zero() {
    let q = |t: &str| Quantity::parse(t).expect("valid");
    assert_eq!(q("100m").value(), 1);
    assert_eq!(q("-100m").value(), -1);
    assert_eq!(q("1Ki").value(), 1024);
    assert_eq!(q("250m").milli_value(), 250);
    assert_eq!(q("2").milli_value(), 2000);
    assert_eq!(q("1u").milli_value(), 1);
    assert_eq!(q("1e30").value(), i64::MAX);
    assert!((q("1500m").to_f64() - 1.5).abs() < 1e-9);
}

#[test]
fn arithmetic_keeps_the_format() {
    let q = |t: &str| Quantity::parse(t).expect("valid");
    assert_eq!(q("1Gi").add(&q("1Gi")).to_string(), "2Gi");
    assert_eq!(q("0").add(&q("1Gi")).to_string(), "1Gi");
    assert_eq!(q("500m").add(&q("0.5")).to_string(), "1");
    assert_eq!(q("1").sub(&q("1m")).to_string(), "999m");
    assert_eq!(q("1Gi").sub(&q("1Gi")).to_string(), "0");
    assert_eq!(q("100m").mul(30).to_string(), "3");
    assert!(q("1Gi") > q("1G"));
    assert_eq!(q("1"), q("1000m"));
    assert!(q("1e300") > q("1E"));
    assert!(q("-1e300") < q("-1E"));
}

#[test]
fn json() {
    let q: Quantity = serde_json::from_str("2").expect("number");
    assert_eq!(serde_json::to_string(&q).expect("string"), "\"2\"");
    let q: Quantity = serde_json::from_str("\" 1024Mi \"").expect("string");
    assert_eq!(q.to_string(), "1Gi");
    assert!(serde_json::from_str::<Quantity>("\"x\"").is_err());
}

fn any_quantity() -> impl Strategy<Value = Quantity> {
    let format = prop_oneof![
        Just(Format::DecimalExponent),
        Just(Format::BinarySi),
        Just(Format::DecimalSi)
    ];
    (any::<i64>(), -9i32..=9, format).prop_map(|(m, s, f)| Quantity::exact(i128::from(m), s, f))
}

proptest! {
    #[test]
    fn printing_loses_nothing(q in any_quantity()) {
        let text = q.to_string();
        let again = Quantity::parse(&text).expect("own output parses");
        // Binary amounts are capped on reading.
        prop_assume!(q.format != Format::BinarySi || q.value().unsigned_abs() < i64::MAX.unsigned_abs());
        prop_assert_eq!(&again, &q);
        prop_assert_eq!(again.to_string(), text);
    }

    #[test]
    fn adding_and_subtracting_cancel(a in any_quantity(), b in any_quantity()) {
        prop_assert_eq!(a.add(&b).sub(&b), a.clone());
        prop_assert_eq!(a.cmp(&b), a.sub(&b).cmp(&Quantity::zero()));
    }

    #[test]
    fn parser_never_panics(text in "[-+0-9.eEinumkKMGTP]{0,24}") {
        let _ = Quantity::parse(&text);
    }
}
