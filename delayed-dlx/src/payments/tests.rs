//! The header that counts the attempts, and the copies that carry it.

use super::*;

fn headers(fields: &[(&str, AMQPValue)]) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in fields {
        headers.insert((*name).into(), value.clone());
    }
    BasicProperties::default().with_headers(headers)
}

#[test]
fn the_attempt_is_the_first_unless_the_header_says_otherwise() {
    assert_eq!(attempt(&BasicProperties::default()), 1);
    for (value, expected) in [
        (AMQPValue::LongUInt(3), 3),
        (AMQPValue::LongUInt(u32::MAX), u32::MAX),
        (AMQPValue::LongUInt(0), 1),
        (AMQPValue::LongLongInt(-7), 1),
        (AMQPValue::LongString("3".into()), 1),
        (AMQPValue::Void, 1),
    ] {
        assert_eq!(attempt(&headers(&[(ATTEMPT, value.clone())])), expected, "{value:?}");
    }
}

#[test]
fn a_copy_keeps_every_property_and_leaves_the_brokers_headers_behind() {
    let original = headers(&[
        ("colour", text("red")),
        (ATTEMPT, AMQPValue::LongUInt(2)),
        ("x-death", AMQPValue::FieldArray(Vec::new().into())),
        ("x-first-death-queue", text("payments.retry.1000ms")),
        ("x-last-death-reason", text("expired")),
        ("x-delivery-count", AMQPValue::LongLongInt(0)),
        ("x-own", AMQPValue::Boolean(true)),
    ])
    .with_content_type("text/plain".into())
    .with_correlation_id("c".into())
    .with_delivery_mode(2)
    .with_message_id("m".into())
    .with_priority(5)
    .with_reply_to("r".into())
    .with_timestamp(7);
    let expected = headers(&[
        ("colour", text("red")),
        (ATTEMPT, AMQPValue::LongUInt(3)),
        ("x-own", AMQPValue::Boolean(true)),
    ]);
    let copied = expected.headers().clone().expect("just set");
    assert_eq!(of_attempt(&original, 3), original.clone().with_headers(copied));
    assert_eq!(attempt(&of_attempt(&BasicProperties::default(), 2)), 2);
}
