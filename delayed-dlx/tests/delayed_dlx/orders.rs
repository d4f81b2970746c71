//! The delay.

use std::time::Instant;

use serde_json::json;

use super::*;

/// Whether the broker takes the queues of this type for a delay; if not, the program has said why.
fn takes(queue_type: &str) -> bool {
    let vhost = broker::node().vhost().unwrap();
    let end = delay_producer(&vhost.url()).args(["--queue-type", queue_type]).run();
    if end.code == Some(0) {
        return true;
    }
    let error = end.expect_code(1).stderr.pop().unwrap();
    let (refusal, advice) = match queue_type {
        "quorum" => ("406 PRECONDITION_FAILED - invalid arg 'x-", "use --queue-type classic on this broker"),
        _ => {
            ("541 INTERNAL_ERROR - Feature `transient_nonexcl_queues`", "use --queue-type quorum or classic")
        }
    };
    assert!(error.contains(refusal) && error.contains(advice), "{error}");
    false
}

#[test]
fn quorum_queues_delay_since_3_10() {
    assert_eq!(takes("quorum"), broker::node().is_from(3, 10).unwrap());
}

#[test]
fn an_order_comes_when_its_delay_is_over_whichever_side_starts_first() {
    let vhost = broker::node().vhost().unwrap();
    let url = &vhost.url();
    for (queue_type, consumer_first) in [("classic", true), ("classic", false), ("quorum", true)] {
        if !takes(queue_type) {
            continue;
        }
        let prefix = format!("{queue_type}-{consumer_first}-");
        let options = ["--prefix", &prefix, "--queue-type", queue_type];
        let start = || {
            let mut consumer = delay_consumer(url).args(options).start();
            consumer.expect_line(WAITING);
            consumer
        };
        let early = consumer_first.then(start);
        let producer = delay_producer(url).args(options).args(["--delay", "300ms"]).run().expect_code(0);
        assert_eq!(producer.stdout, [" [x] Sent order 1, to be paid within 300ms"]);
        let mut consumer = early.unwrap_or_else(start);

        let (passed, history) = expect_cancelled(&mut consumer, "order 1", 300);
        assert!(passed >= 300, "{prefix}: {passed} ms");
        let wait = format!("{prefix}orders.wait.300ms");
        let (death, time) = history.split_once(" time=").unwrap();
        assert_eq!(
            death,
            format!(
                "     x-death: queue={wait:?} reason=expired count=1 exchange=\"\" routing-keys=[{wait:?}]"
            )
        );
        assert!(time.len() == "2026-01-01T00:00:00Z".len() && time.ends_with('Z'), "{time}");
        interrupt(consumer);
    }
}

#[test]
fn with_a_queue_for_each_delay_a_short_one_overtakes_a_long_one() {
    let vhost = broker::node().vhost().unwrap();
    let mut consumer = delay_consumer(&vhost.url()).start();
    consumer.expect_line(WAITING);
    delay_producer(&vhost.url()).args(["--delay", "5s", "--delay", "100ms"]).run().expect_code(0);
    let (second, _) = expect_cancelled(&mut consumer, "order 2", 100);
    let (first, _) = expect_cancelled(&mut consumer, "order 1", 5000);
    assert!(second >= 100, "{second} ms");
    assert!(first >= 5000, "{first} ms");
}

#[test]
fn with_one_queue_for_all_delays_a_long_one_holds_up_a_short_one() {
    let vhost = broker::node().vhost().unwrap();
    let mut consumer = delay_consumer(&vhost.url()).start();
    consumer.expect_line(WAITING);
    delay_producer(&vhost.url()).args(["--per-message", "--delay", "5s,100ms"]).run().expect_code(0);
    // The second one was sent a moment later.
    for (order, asked, least) in [("order 1", 5000, 5000), ("order 2", 100, 1000)] {
        let (passed, history) = expect_cancelled(&mut consumer, order, asked);
        assert!(passed >= least, "{order}: {passed} ms");
        assert!(history.contains("queue=\"orders.wait.per-message\" reason=expired count=1"), "{history}");
        assert!(history.ends_with(&format!(" original-expiration=\"{asked}\"")), "{history}");
    }
}

#[test]
fn the_producer_sends_one_order_or_the_two_that_show_the_trap() {
    let vhost = broker::node().vhost().unwrap();
    let sent = |args: &[&str]| delay_producer(&vhost.url()).args(args).run().expect_code(0).stdout;
    let five = " [x] Sent order 1, to be paid within 5s";
    assert_eq!(sent(&[]), [five]);
    assert_eq!(sent(&["--per-message"]), [five, " [x] Sent order 2, to be paid within 1s"]);
}

#[test]
fn both_sides_declare_durable_queues_and_nobody_consumes_the_one_in_front() {
    let vhost = broker::node().vhost().unwrap();
    let mut consumers = Vec::new();
    let types = [("classic", true), ("quorum", true), ("transient", false)];
    let types: Vec<_> = types.into_iter().filter(|(queue_type, _)| takes(queue_type)).collect();
    for &(queue_type, durable) in &types {
        let mut of_type = json!({"x-queue-type": if durable { queue_type } else { "classic" }});
        let prefix = format!("{queue_type}-");
        let options = ["--prefix", &prefix, "--queue-type", queue_type];
        let mut consumer = delay_consumer(&vhost.url()).args(options).start();
        consumer.expect_line(WAITING);
        delay_producer(&vhost.url()).args(options).args(["--delay", "1h"]).run().expect_code(0);
        delay_producer(&vhost.url()).args(options).args(["--per-message"]).run().expect_code(0);

        let queue = |name: &str| declared(&vhost, &format!("{prefix}{name}"));
        let unpaid = queue("orders.unpaid");
        assert_eq!(unpaid["durable"], durable);
        assert_eq!(unpaid["arguments"], of_type);
        of_type["x-dead-letter-exchange"] = json!(format!("{prefix}orders.dlx"));
        of_type["x-dead-letter-routing-key"] = json!("unpaid");
        if queue_type == "quorum" {
            of_type["x-dead-letter-strategy"] = json!("at-least-once");
            of_type["x-overflow"] = json!("reject-publish");
        }
        assert_eq!(queue("orders.wait.per-message")["arguments"], of_type);
        of_type["x-message-ttl"] = json!(3_600_000);
        let wait = queue("orders.wait.3600000ms");
        assert_eq!(wait["arguments"], of_type);
        assert_eq!((&wait["durable"], &wait["auto_delete"]), (&json!(durable), &json!(false)));

        consumers.push(consumer);
    }
    let mut consumed: Vec<_> =
        vhost.consumers().unwrap().iter().map(|consumer| consumer["queue_name"].clone()).collect();
    consumed.sort_by_key(Value::to_string);
    let expected: Vec<_> = types.iter().map(|(prefix, _)| json!(format!("{prefix}-orders.unpaid"))).collect();
    assert_eq!(consumed, expected);
    consumers.into_iter().for_each(interrupt);
}

#[test]
fn orders_are_shared_among_consumers() {
    let vhost = broker::node().vhost().unwrap();
    let mut consumers = [(); 2].map(|()| delay_consumer(&vhost.url()).start());
    for consumer in &mut consumers {
        consumer.expect_line(WAITING);
    }
    delay_producer(&vhost.url()).args(["--delay", "100ms,100ms"]).run().expect_code(0);
    // One queue, two consumers: RabbitMQ takes turns.
    let mut orders = consumers.each_mut().map(|consumer| consumer.wait_for_line(|_| true));
    orders.sort();
    assert_eq!(
        orders,
        [1, 2].map(|number| format!(" [x] order {number} was not paid: cancelled, its stock put back"))
    );
}

#[test]
fn a_message_from_somebody_else_does_no_harm() {
    let vhost = broker::node().vhost().unwrap();
    let mut consumer = delay_consumer(&vhost.url()).start();
    consumer.expect_line(WAITING);
    let far_future = json!({"headers": {"ordered-at-ms": i64::MAX, "delay-ms": 5}});
    let nonsense = json!({"headers": {"ordered-at-ms": "now", "delay-ms": -5, "x-death": "often"}});
    for (properties, payload, order, times) in [
        (json!({}), "", "", "asked for an unknown time, came after an unknown time"),
        (nonsense, "/w==", "\u{fffd}", "asked for an unknown time, came after an unknown time"),
        (far_future, "b2s=", "ok", "asked for 5 ms, came after an unknown time"),
    ] {
        publish(&vhost, "orders.unpaid", &properties, payload);
        consumer.expect_line(&format!(" [x] {order} was not paid: cancelled, its stock put back"));
        consumer.expect_line(&format!("     {times}"));
    }
    interrupt(consumer);
    // They are settled: the next consumer gets none of them again.
    let mut consumer = delay_consumer(&vhost.url()).start();
    consumer.expect_line(WAITING);
    delay_producer(&vhost.url()).args(["--delay", "1ms"]).run().expect_code(0);
    expect_cancelled(&mut consumer, "order 1", 1);
}

#[test]
fn a_deleted_queue_comes_back_with_its_consumer() {
    let vhost = broker::node().vhost().unwrap();
    let mut consumer = delay_consumer(&vhost.url()).start();
    consumer.expect_line(WAITING);
    broker::node().delete(&format!("/api/queues/{}/orders.unpaid", vhost.name())).unwrap();
    consumer.wait_for_error_line(|line| line.contains("cancelled the consumer of queue 'orders.unpaid'"));
    delay_producer(&vhost.url()).args(["--delay", "300ms"]).run().expect_code(0);
    expect_cancelled(&mut consumer, "order 1", 300);
}

#[test]
fn two_sides_that_disagree_about_the_queue_type_are_told() {
    let vhost = broker::node().vhost().unwrap();
    let url = &vhost.url();
    let mut consumer = delay_consumer(url).args(["--queue-type", "quorum"]).start();
    consumer.expect_line(WAITING);
    interrupt(consumer);
    let end = delay_producer(url).run().expect_code(1);
    let error = end.stderr.join("\n");
    assert!(error.contains("406") && error.contains("use the same --queue-type"), "{error}");
}

#[test]
fn a_wrong_option_is_refused_before_anything_connects() {
    for (args, words) in [
        (["--delay", "0s"], "must be from 1ms"),
        (["--delay", "50d"], "seven weeks"),
        (["--delay", "5"], "time unit needed"),
        (["--delay", "soon"], "invalid value"),
        (["--queue-type", "fast"], "invalid value"),
    ] {
        let end = delay_producer("amqp://127.0.0.1:1").args(args).run().expect_code(2);
        assert!(end.stdout.is_empty() && end.stderr.join("\n").contains(words), "{:?}", end.stderr);
    }
}

#[test]
fn a_queues_time_to_live_as_text_is_refused() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    for (queue, ttl, taken) in [("number", json!(1000), true), ("text", json!("1000"), false)] {
        let path = format!("/api/queues/{}/{queue}", vhost.name());
        let declared = node.put(&path, &json!({"durable": true, "arguments": {"x-message-ttl": ttl}}));
        assert_eq!(declared.is_ok(), taken, "{queue}: {declared:?}");
    }
}

/// Why the page says to check the spelling.
#[test]
fn a_misspelt_argument_is_accepted_and_has_no_effect() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    let queue = |name: &str, arguments| {
        let path = format!("/api/queues/{}/{name}", vhost.name());
        node.put(&path, &json!({"durable": true, "arguments": arguments})).unwrap();
    };
    queue("dead", json!({}));
    let misspelt =
        json!({"x-message-ttl": 1, "x-dead-letter-exchange": "", "x-deadletter-routing-key": "dead"});
    queue("wait", misspelt);
    publish(&vhost, "wait", &json!({}), "");
    let spelt =
        json!({"x-message-ttl": 100, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"});
    queue("correct", spelt);
    publish(&vhost, "correct", &json!({}), "");
    let died_in = amqp(&vhost.url(), async |session| {
        let orders = delayed_dlx::orders::Orders {
            exchange: String::new(),
            unpaid: "dead".into(),
            queue_type: shared::QueueType::Classic,
        };
        let mut consumer = orders.consume(&session.channel).await?;
        let dead = session.next(&mut consumer).await?.unwrap();
        Ok(delayed_dlx::x_death::XDeath::of(&dead.properties).deaths[0].queue.clone())
    });
    assert_eq!(died_in.as_deref(), Some("correct"));
}

#[test]
fn what_a_classic_wait_queue_loses_without_its_dead_letter_exchange_a_quorum_one_keeps() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    let safe = takes("quorum");
    for queue_type in ["quorum", "classic"] {
        if queue_type == "quorum" && !safe {
            continue;
        }
        let prefix = format!("{queue_type}-");
        let options = ["--prefix", &prefix, "--queue-type", queue_type, "--delay", "5s"];
        delay_producer(&vhost.url()).args(options).run().expect_code(0);
        node.delete(&format!("/api/exchanges/{}/{prefix}orders.dlx", vhost.name())).unwrap();
    }
    let messages = |queue: &str| vhost.queue(queue).unwrap().unwrap()["messages"].as_u64();
    let deadline = Instant::now() + SOON;
    while messages("classic-orders.wait.5000ms") != Some(0) {
        assert!(Instant::now() < deadline, "the order does not expire");
    }
    // Its time was up before the other's.
    if safe {
        assert_eq!(messages("quorum-orders.wait.5000ms"), Some(1));
    }
}
