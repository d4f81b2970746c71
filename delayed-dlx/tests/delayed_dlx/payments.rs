//! Poison messages.

use delayed_dlx::payments::{self, Payments};
use delayed_dlx::x_death::{Reason, XDeath};
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use shared::{Deadline, QueueType};

use super::*;

/// Takes the next dead letter; it must come.
fn dead_letter(url: &str, prefix: &str) -> Delivery {
    amqp(url, async |session| {
        let consumer = session.channel.basic_consume(
            format!("{prefix}payments.dead").into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer = consumer.deadline("register a consumer").await?;
        let dead = session.next(&mut consumer).await?.unwrap();
        let ack = session.channel.basic_ack(dead.delivery_tag, BasicAckOptions::default());
        ack.deadline("acknowledge").await?;
        Ok(dead)
    })
}

#[test]
fn a_failing_payment_is_tried_three_times_and_then_rejected_to_the_dead_letter_queue() {
    let vhost = broker::node().vhost().unwrap();
    for queue_type in ["quorum", "classic"] {
        let prefix = format!("{queue_type}-");
        let options = ["--prefix", &prefix, "--queue-type", queue_type, "--retry-after", "300ms"];
        let mut worker = poison(&vhost.url()).args(options).start();
        for line in [
            " [x] Sent payment 1",
            " [x] Sent poison",
            " [x] Sent payment 2",
            " [x] payment 1: paid",
            " [!] poison: cannot be paid; attempt 1 of 3, the next in 300ms",
            " [x] payment 2: paid",
            " [!] poison: cannot be paid; attempt 2 of 3, the next in 300ms",
        ] {
            worker.expect_line(line);
        }
        worker.expect_line(&format!(
            " [!] poison: cannot be paid; attempt 3 of 3, rejected to {prefix}payments.dead"
        ));
        interrupt(worker);

        let dead = dead_letter(&vhost.url(), &prefix);
        assert_eq!(dead.data, b"poison");
        assert_eq!(payments::attempt(&dead.properties), 3);
        assert_eq!(dead.properties.message_id().as_ref().unwrap().as_str().len(), 32);
        assert_eq!(*dead.properties.delivery_mode(), Some(2));
        let history = XDeath::of(&dead.properties);
        assert_eq!(history.deaths.len(), 2, "{history:?}");
        assert_eq!(history.count(&format!("{prefix}payments"), &Reason::Rejected), 1);
        // Of the last attempt only: the copies start their histories anew.
        assert_eq!(history.count(&format!("{prefix}payments.retry.300ms"), &Reason::Expired), 1);
    }
}

#[test]
fn a_payment_that_is_put_back_ends_at_the_delivery_limit_of_a_quorum_queue() {
    let vhost = broker::node().vhost().unwrap();
    let mut worker = poison(&vhost.url()).args(["--requeue", "--attempts", "2", "poison"]).start();
    worker.expect_line(" [x] Sent poison");
    let dead = dead_letter(&vhost.url(), "");
    for _ in 0..3 {
        worker.expect_line(" [!] poison: cannot be paid; put back at once");
    }
    assert_eq!(XDeath::of(&dead.properties).count("payments", &Reason::DeliveryLimit), 1);
    interrupt(worker);
}

#[test]
fn a_payment_that_is_put_back_into_a_classic_queue_comes_back_for_ever_and_nobody_else_gets_a_turn() {
    let vhost = broker::node().vhost().unwrap();
    let mut worker = poison(&vhost.url()).args(["--requeue", "--queue-type", "classic"]).start();
    worker.wait_for_line(|line| line == " [x] payment 1: paid");
    for _ in 0..200 {
        worker.expect_line(" [!] poison: cannot be paid; put back at once");
    }
    interrupt(worker);
    assert_eq!(vhost.queue("payments.dead").unwrap().unwrap()["messages"], 0);
    assert_eq!(vhost.queue("payments").unwrap().unwrap()["messages"], 2);
}

#[test]
fn a_payment_that_kills_its_worker_each_time_ends_in_the_dead_letter_queue() {
    let vhost = broker::node().vhost().unwrap();
    let url = &vhost.url();
    let payments =
        Payments::new(&ConnectionArgs::for_url(url), 2, Duration::from_secs(1), QueueType::Quorum).unwrap();
    amqp(url, async |session| {
        payments.declare(&session.channel).await?;
        payments::send(&session.channel, &payments.queue, "deadly", "id").await
    });
    for crash in 0..3 {
        // Its connection ends before it has settled the payment.
        let payment = amqp(url, async |session| {
            let mut consumer = payments.consume(&session.channel).await?;
            session.next(&mut consumer).await.map(Option::unwrap)
        });
        assert_eq!((&*payment.data, payment.redelivered), (b"deadly".as_slice(), crash > 0));
    }
    let dead = dead_letter(url, "");
    assert_eq!(XDeath::of(&dead.properties).count("payments", &Reason::DeliveryLimit), 1);
}

#[test]
fn a_payment_of_which_no_copy_can_be_made_is_set_aside_at_once() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    // The broker takes a user-id only from that user, so guest cannot publish what bob did.
    let bob = format!("bob-{}", vhost.name());
    let user = format!("/api/users/{bob}");
    node.put(&user, &json!({"password": "secret", "tags": ""})).unwrap();
    let all = json!({"configure": ".*", "write": ".*", "read": ".*"});
    node.put(&format!("/api/permissions/{}/{bob}", vhost.name()), &all).unwrap();

    let mut worker = poison(&vhost.url()).arg("payment 1").start();
    worker.wait_for_line(|line| line == " [x] payment 1: paid");
    let url = vhost.url().replace("guest:guest", &format!("{bob}:secret"));
    let as_bob = lapin::BasicProperties::default().with_user_id(bob.as_str().into());
    amqp(&url, async |session| {
        let options = lapin::options::BasicPublishOptions::default();
        let poison =
            session.channel.basic_publish("".into(), "payments".into(), options, b"poison", as_bob.clone());
        poison.deadline("publish a message").await.map(drop)
    });
    worker.wait_for_error_line(|line| line.contains("cannot be tried again") && line.contains("406"));
    worker.expect_line(" [!] poison: cannot be paid; attempt 1 of 3, rejected to payments.dead");
    // It goes on with what comes next, a body that is no text included.
    publish(&vhost, "payments", &json!({}), "/w==");
    worker.expect_line(" [x] \u{fffd}: paid");
    node.delete(&user).unwrap();
}

#[test]
fn a_wait_queue_that_somebody_deleted_is_declared_again() {
    let vhost = broker::node().vhost().unwrap();
    let mut worker = poison(&vhost.url()).args(["--retry-after", "100ms", "payment 1"]).start();
    worker.wait_for_line(|line| line == " [x] payment 1: paid");
    let path = format!("/api/queues/{}/payments.retry.100ms", vhost.name());
    broker::node().delete(&path).unwrap();
    publish(&vhost, "payments", &json!({}), "cG9pc29u");
    worker.wait_for_line(|line| line.ends_with("attempt 3 of 3, rejected to payments.dead"));
}

#[test]
fn the_queues_are_durable_and_lead_where_they_should() {
    let vhost = broker::node().vhost().unwrap();
    let mut worker =
        poison(&vhost.url()).args(["--attempts", "5", "--retry-after", "2m", "payment 1"]).start();
    worker.wait_for_line(|line| line == " [x] payment 1: paid");
    for (name, arguments) in [
        (
            "payments",
            json!({"x-queue-type": "quorum", "x-dead-letter-exchange": "payments.dlx", "x-delivery-limit": 5}),
        ),
        (
            "payments.retry.120000ms",
            json!({
                "x-queue-type": "classic", "x-message-ttl": 120_000,
                "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "payments",
            }),
        ),
        ("payments.dead", json!({"x-queue-type": "quorum"})),
    ] {
        let queue = declared(&vhost, name);
        assert_eq!((&queue["durable"], &queue["arguments"]), (&json!(true), &arguments), "{name}");
    }
    let bindings = vhost.bindings().unwrap();
    let from = |exchange: &str| bindings.iter().filter(|binding| binding["source"] == exchange).count();
    assert_eq!(from("payments.dlx"), 1);
}

#[test]
fn a_worker_needs_at_least_one_attempt_and_a_pause() {
    for args in [["--attempts", "0"], ["--attempts", "-1"], ["--retry-after", "0s"]] {
        poison("amqp://127.0.0.1:1").args(args).run().expect_code(2);
    }
}
