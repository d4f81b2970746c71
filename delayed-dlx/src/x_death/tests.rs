//! Headers as brokers of several versions send them, and as nobody should.

use lapin::types::{DecimalValue, FieldArray};

use super::*;

fn table(fields: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in fields {
        table.insert((*name).into(), value.clone());
    }
    table
}

fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

fn short(text: &str) -> AMQPValue {
    AMQPValue::ShortString(text.into())
}

fn array(values: impl IntoIterator<Item = AMQPValue>) -> AMQPValue {
    AMQPValue::FieldArray(values.into_iter().collect::<Vec<_>>().into())
}

fn entry(fields: &[(&str, AMQPValue)]) -> AMQPValue {
    AMQPValue::FieldTable(table(fields))
}

fn read(deaths: AMQPValue) -> Vec<Death> {
    XDeath::from_headers(&table(&[("x-death", deaths)])).deaths
}

/// An entry without anything in it.
fn nothing() -> Death {
    Death {
        queue: None,
        reason: None,
        count: 1,
        exchange: None,
        routing_keys: vec![],
        time: None,
        original_expiration: None,
    }
}

/// The latest death as 3.8 to 4.3 send it.
fn expired() -> AMQPValue {
    entry(&[
        ("original-expiration", long("5000")),
        ("count", AMQPValue::LongLongInt(2)),
        ("reason", long("expired")),
        ("queue", long("orders.wait")),
        ("time", AMQPValue::Timestamp(1_700_000_000)),
        ("exchange", long("")),
        ("routing-keys", array([long("orders.wait"), long("a copy")])),
    ])
}

/// An older death of the same message.
fn rejected() -> AMQPValue {
    entry(&[
        ("count", AMQPValue::LongLongInt(1)),
        ("reason", long("rejected")),
        ("queue", long("orders")),
        ("time", AMQPValue::Timestamp(1_699_999_990)),
        ("exchange", long("shop")),
        ("routing-keys", array([long("order.created")])),
    ])
}

#[test]
fn a_history_of_two_deaths_is_read_newest_first() {
    let headers = table(&[
        ("x-death", array([expired(), rejected()])),
        ("x-first-death-reason", long("rejected")),
        ("x-first-death-queue", long("orders")),
        ("x-first-death-exchange", long("shop")),
        ("x-last-death-reason", long("expired")),
        ("x-last-death-queue", long("orders.wait")),
        ("x-last-death-exchange", long("")),
        ("x-delivery-count", AMQPValue::LongLongInt(0)),
    ]);
    let history = XDeath::of(&BasicProperties::default().with_headers(headers));

    assert_eq!(
        history.deaths.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            r#"queue="orders.wait" reason=expired count=2 exchange="" routing-keys=["orders.wait", "a copy"] time=2023-11-14T22:13:20Z original-expiration="5000""#,
            r#"queue="orders" reason=rejected count=1 exchange="shop" routing-keys=["order.created"] time=2023-11-14T22:13:10Z"#,
        ]
    );
    assert_eq!(
        history.first,
        Some(Cause {
            reason: Some(Reason::Rejected),
            queue: Some("orders".into()),
            exchange: Some("shop".into()),
        })
    );
    assert_eq!(
        history.last,
        Some(Cause {
            reason: Some(Reason::Expired),
            queue: Some("orders.wait".into()),
            exchange: Some(String::new()),
        })
    );
    assert_eq!(history.count("orders.wait", &Reason::Expired), 2);
    assert_eq!(history.count("orders.wait", &Reason::Rejected), 0);
    assert_eq!(history.count("orders", &Reason::Rejected), 1);
}

#[test]
fn before_3_13_there_are_no_headers_of_the_last_death() {
    let history = XDeath::from_headers(&table(&[
        ("x-death", array([rejected()])),
        ("x-first-death-reason", long("rejected")),
        ("x-first-death-queue", long("orders")),
        ("x-first-death-exchange", long("shop")),
    ]));
    assert!(history.first.is_some());
    assert_eq!(history.last, None);
}

#[test]
fn a_message_that_never_died_has_no_history() {
    assert_eq!(XDeath::of(&BasicProperties::default()), XDeath::default());
    assert_eq!(XDeath::from_headers(&table(&[("colour", long("red"))])), XDeath::default());
}

#[test]
fn every_reason_has_its_name_and_an_unknown_one_keeps_its_word() {
    for (word, reason) in [
        ("rejected", Reason::Rejected),
        ("expired", Reason::Expired),
        ("maxlen", Reason::MaxLen),
        ("delivery_limit", Reason::DeliveryLimit),
    ] {
        assert_eq!(Reason::from(word.to_owned()), reason);
        assert_eq!(reason.to_string(), word);
    }
    let bored = Reason::from("bored".to_owned());
    assert_eq!((bored.to_string(), bored), (r#""bored""#.to_owned(), Reason::Other("bored".into())));
}

#[test]
fn numbers_of_any_size_and_text_of_either_kind_are_read() {
    for seven in [
        AMQPValue::ShortShortInt(7),
        AMQPValue::ShortShortUInt(7),
        AMQPValue::ShortInt(7),
        AMQPValue::ShortUInt(7),
        AMQPValue::LongInt(7),
        AMQPValue::LongUInt(7),
        AMQPValue::LongLongInt(7),
        AMQPValue::Timestamp(7),
    ] {
        let death = entry(&[("count", seven.clone()), ("time", seven)]);
        assert_eq!(read(array([death])), [Death { count: 7, time: Some(7), ..nothing() }]);
    }
    let death = entry(&[
        ("queue", short("orders")),
        ("reason", short("maxlen")),
        ("exchange", short("shop")),
        ("routing-keys", array([short("a"), long("b")])),
        ("original-expiration", short("100")),
    ]);
    assert_eq!(
        read(array([death])),
        [Death {
            queue: Some("orders".into()),
            reason: Some(Reason::MaxLen),
            exchange: Some("shop".into()),
            routing_keys: vec!["a".into(), "b".into()],
            original_expiration: Some("100".into()),
            ..nothing()
        }]
    );
}

#[test]
fn missing_and_unknown_fields_do_no_harm() {
    let empty = entry(&[]);
    let unknown = entry(&[("colour", long("red")), ("queue", long("orders"))]);
    assert_eq!(
        read(array([empty, unknown])),
        [nothing(), Death { queue: Some("orders".into()), ..nothing() }]
    );
    assert_eq!(nothing().to_string(), "count=1");

    let only_the_queue = XDeath::from_headers(&table(&[("x-last-death-queue", long("orders"))]));
    assert_eq!(
        only_the_queue.last,
        Some(Cause { reason: None, queue: Some("orders".into()), exchange: None })
    );
}

#[test]
fn values_that_make_no_sense_are_left_out() {
    let nonsense = [
        AMQPValue::Void,
        AMQPValue::Boolean(true),
        AMQPValue::Float(f32::NAN),
        AMQPValue::Double(-1.0),
        AMQPValue::DecimalValue(DecimalValue { scale: 255, value: u32::MAX }),
        AMQPValue::ByteArray(vec![0xff].into()),
        AMQPValue::FieldTable(FieldTable::default()),
    ];
    for value in nonsense {
        for name in ["queue", "reason", "count", "exchange", "routing-keys", "time", "original-expiration"] {
            assert_eq!(read(array([entry(&[(name, value.clone())])])), [nothing()], "{name}: {value:?}");
        }
        assert_eq!(read(array([entry(&[("routing-keys", array([value.clone()]))])])), [nothing()]);
        assert_eq!(
            XDeath::from_headers(&table(&[("x-first-death-queue", value.clone())])),
            XDeath::default()
        );
        // A list of something else, and no list at all.
        if !matches!(value, AMQPValue::FieldTable(_)) {
            assert_eq!(read(array([value.clone(), rejected()])).len(), 1);
        }
        assert_eq!(read(value), []);
    }
    assert_eq!(read(AMQPValue::FieldArray(FieldArray::default())), []);
}

#[test]
fn extreme_numbers_and_bytes_that_are_no_text_are_printed() {
    for (count, expected) in [(i64::MIN, 1), (-1, 1), (0, 1), (i64::MAX, i64::MAX.unsigned_abs())] {
        assert_eq!(read(array([entry(&[("count", AMQPValue::LongLongInt(count))])]))[0].count, expected);
    }
    let both = XDeath {
        deaths: vec![
            Death {
                queue: Some("q".into()),
                reason: Some(Reason::Expired),
                count: u64::MAX,
                ..nothing()
            };
            2
        ],
        ..XDeath::default()
    };
    assert_eq!(both.count("q", &Reason::Expired), u64::MAX);

    for (time, expected) in [
        (0, "1970-01-01T00:00:00Z"),
        (LAST_SECOND, "9999-12-31T23:59:59Z"),
        // Milliseconds where seconds belong.
        (1_700_000_000_000, "1700000000000"),
        (u64::MAX, "18446744073709551615"),
    ] {
        let death = Death { time: Some(time), ..nothing() };
        assert_eq!(death.to_string(), format!("count=1 time={expected}"));
    }

    let bytes = entry(&[("queue", AMQPValue::LongString(vec![b'a', 0xff, b'\n'].into()))]);
    assert_eq!(read(array([bytes]))[0].to_string(), "queue=\"a\u{fffd}\\n\" count=1");
}
