//! The lessons as processes against a real broker, their output compared line by line.

use std::sync::{Arc, Once};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use broker::{Node, node};
use harness::{Program, Stream};
use lapin::options::QueueDeclareOptions;
use queue_lifecycle::{Arguments, Overflow, declare};
use serde_json::json;
use shared::{Connection, ConnectionArgs, Shutdown};

const LIMIT: Duration = Duration::from_secs(30);

/// The lines without what differs from run to run and from broker to broker: the names that are made up,
/// and a broker's reasons, of which the code and its name stay.
fn comparable(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| comparable_line(line)).collect()
}

fn comparable_line(line: &str) -> String {
    let mut line = line.to_owned();
    for start in ["declare-", "nowhere-", "headers-", "amq.gen-"] {
        if let Some(at) = line.find(start).map(|at| at + start.len()) {
            let end = line[at..].find([',', ' ', '\'']).map_or(line.len(), |length| at + length);
            line.replace_range(at..end, "…");
        }
    }
    for name in ["ACCESS_REFUSED", "NOT_FOUND", "RESOURCE_LOCKED", "PRECONDITION_FAILED", "NOT_IMPLEMENTED"] {
        if let Some((before, _)) = line.split_once(&format!("{name} - ")) {
            line = format!("{before}{name}");
        }
    }
    line
}

/// Runs a lesson twice at the same time, and finds the expected lines in both and nothing left behind. What is
/// expected begins on a line of its own, four columns to the right of where the program prints it.
#[track_caller]
fn teaches(program: &str, expected: &str) {
    let vhost = node().vhost().unwrap_or_else(|error| panic!("{error:#}"));
    let expected: Vec<_> =
        expected.lines().skip(1).map(|line| line.strip_prefix("    ").unwrap_or(line)).collect();
    let start = || Program::new(program).args(["--url", &vhost.url()]).start();
    for mut running in [start(), start()] {
        let end = running.wait(LIMIT).expect_code(0);
        assert_eq!(comparable(&end.stdout), expected);
    }
    let left = |path: &str| node().get(path).unwrap_or_else(|error| panic!("{error:#}"));
    // RabbitMQ 4.3 deletes the queues of a connection some time after the connection has gone.
    let deadline = Instant::now() + LIMIT;
    let queues = || left(&format!("/api/queues/{}", vhost.name()));
    while queues() != json!([]) {
        assert!(Instant::now() < deadline, "{}", queues());
        sleep(Duration::from_millis(50));
    }
    let exchanges = left(&format!("/api/exchanges/{}", vhost.name()));
    let ours = |exchange: &&serde_json::Value| {
        exchange["name"].as_str().is_some_and(|name| !name.is_empty() && !name.starts_with("amq."))
    };
    assert_eq!(exchanges.as_array().and_then(|exchanges| exchanges.iter().find(ours)), None);
}

#[test]
fn a_declaration_must_agree_with_the_queue_that_exists() {
    teaches(
        env!("CARGO_BIN_EXE_declare"),
        "
     [x] Declare a queue without a name: the broker calls it amq.gen-…
     [x] Declare declare-…, durable: messages ready: 0, consumers: 0
     [x] Declare it again, just so: messages ready: 0, consumers: 0
     [x] Declare it again, not durable: 406 PRECONDITION_FAILED
     [x] Declare it again, with x-max-length: 406 PRECONDITION_FAILED
     [x] Declare it again, not durable, with no-wait: no answer
     [x] Wait for a message on that channel: 406 PRECONDITION_FAILED
     [x] Declare amq.mine: 403 ACCESS_REFUSED",
    );
}

#[test]
fn a_queue_goes_with_its_connection_its_last_consumer_or_its_time() {
    teaches(
        env!("CARGO_BIN_EXE_lifetimes"),
        "
     [x] Declare an exclusive queue, durable even: amq.gen-…
     [x] Look at it on another channel of its connection: messages ready: 0, consumers: 0
     [x] Look at it on another connection: 405 RESOURCE_LOCKED
     [x] Close its connection and look again: 404 NOT_FOUND
     [x] Declare an auto-delete queue: amq.gen-…
     [x] Close its connection and look at it: messages ready: 0, consumers: 0
     [x] Consume it: messages ready: 0, consumers: 1
     [x] Cancel the only consumer and look again: 404 NOT_FOUND
     [x] Declare a queue with x-expires 300: amq.gen-…
     [x] Leave it alone and look again: 404 NOT_FOUND",
    );
}

#[test]
fn a_purge_leaves_what_a_consumer_has_and_a_delete_can_be_careful() {
    teaches(
        env!("CARGO_BIN_EXE_purge_delete"),
        "
     [x] Publish three messages: messages ready: 3, consumers: 0
     [x] Receive one and do not acknowledge it: messages ready: 2, consumers: 1
     [x] Purge: messages deleted: 2
     [x] Delete it if it is unused: 406 PRECONDITION_FAILED
     [x] Close the consumer's channel: messages ready: 1, consumers: 0
     [x] Delete it if it is empty: 406 PRECONDITION_FAILED
     [x] Delete it: messages deleted: 1
     [x] Delete it again: messages deleted: 0",
    );
}

#[test]
fn a_message_arrives_with_all_that_it_carries_and_so_does_its_copy() {
    teaches(
        env!("CARGO_BIN_EXE_properties"),
        r#"
     [x] Receive a message with all properties
         exchange: '', routing key: amq.gen-…
         delivery tag: 1, redelivered: false
         content_type: application/json
         content_encoding: utf-8
         delivery_mode: 2
         priority: 5
         correlation_id: request-1
         reply_to: replies
         expiration: 60000
         message_id: message-1
         timestamp: 1698659725
         type: order.created
         user_id: guest
         app_id: shop
         header attempt: 1
         header shop: north
         body: {"order": 1}
     [x] Send it on with all that it carries: the same arrives
     [x] Send an empty body: 0 bytes, message_id: bare
     [x] Send three bytes that are no text: [ff, 00, fe]
     [x] Send in another user's name: 406 PRECONDITION_FAILED
     [x] Send with the expiration 'tomorrow': 406 PRECONDITION_FAILED"#,
    );
}

#[test]
fn a_full_queue_drops_the_oldest_or_refuses_the_newest_and_old_messages_go() {
    teaches(
        env!("CARGO_BIN_EXE_limits"),
        "
     [x] Declare a queue with x-max-length 2
     [x] Send one: confirmed
     [x] Send two: confirmed
     [x] Send three: confirmed
     [x] Receive what is left: two three
     [x] Declare a queue with x-max-length-bytes 8
     [x] Send one: confirmed
     [x] Send two: confirmed
     [x] Send three: confirmed
     [x] Receive what is left: two three
     [x] Declare a queue with x-max-length 2 and x-overflow reject-publish
     [x] Send one: confirmed
     [x] Send two: confirmed
     [x] Send three: refused (nack)
     [x] Receive what is left: one two
     [x] Send with x-message-ttl 100: gone after a moment
     [x] Send with expiration 100: gone after a moment
     [x] Send with x-message-ttl 100 and expiration 60000: gone after a moment
     [x] Send with x-message-ttl 60000 and expiration 100: gone after a moment
     [x] Declare a queue with x-message-ttl -1: 406 PRECONDITION_FAILED
     [x] Declare a queue with x-message-ttl as a text: 406 PRECONDITION_FAILED
     [x] Declare a queue with x-expires 0: 406 PRECONDITION_FAILED
     [x] Declare a queue with a dead-letter key and no exchange: 406 PRECONDITION_FAILED
     [x] Declare a queue with x-mesage-ttl, which does not exist: no complaint, and no limit",
    );
}

#[test]
fn urgent_messages_come_first_where_the_queue_has_priorities() {
    teaches(
        env!("CARGO_BIN_EXE_priorities"),
        "
     [x] Send, one after the other: zero five none nine five-again 200
     [x] Receive from a queue with x-max-priority 9: nine 200 five five-again zero none
     [x] Receive from a queue with no such argument: zero five none nine five-again 200",
    );
}

#[test]
fn a_message_that_nobody_wants_is_confirmed_and_comes_back_if_it_is_mandatory() {
    teaches(
        env!("CARGO_BIN_EXE_returns"),
        "
     [x] Send to a queue that does not exist: confirmed
     [x] The same, mandatory: confirmed, and this came back before
         reply code: 312, reply text: NO_ROUTE
         exchange: '', routing key: nowhere-…
         content_type: application/json
         content_encoding: utf-8
         delivery_mode: 2
         priority: 5
         correlation_id: request-1
         reply_to: replies
         expiration: 60000
         message_id: message-1
         timestamp: 1698659725
         type: order.created
         user_id: guest
         app_id: shop
         header attempt: 1
         header shop: north
         body: to nobody
     [x] Send to an exchange that does not exist: written without an error
     [x] Wait for its confirm: 404 NOT_FOUND
     [x] Send for a consumer that is ready (immediate): 540 NOT_IMPLEMENTED",
    );
}

#[test]
fn a_headers_exchange_routes_by_all_or_any_of_the_headers() {
    teaches(
        env!("CARGO_BIN_EXE_headers_exchange"),
        "
     [x] Bind queue 'all' with x-match=all format=pdf type=report
     [x] Bind queue 'any' with x-match=any format=pdf type=report
     [x] Send format=pdf type=report: received by [all, any]
     [x] Send format=pdf type=report year=2023: received by [all, any]
     [x] Send format=pdf type=letter: received by [any]
     [x] Send type=letter: received by []
     [x] Send no headers: received by []",
    );
}

#[test]
fn a_consumer_gets_its_prefetch_or_with_automatic_acknowledgements_everything() {
    teaches(
        env!("CARGO_BIN_EXE_consumers"),
        "
     [x] Publish five messages: messages ready: 5, consumers: 0
     [x] Consume with prefetch 2: messages ready: 3, consumers: 1
     [x] Acknowledge one: messages ready: 2, consumers: 1
     [x] Consume with prefetch 2 and automatic acknowledgements: messages ready: 0, consumers: 1
     [x] Consume exclusively: messages ready: 0, consumers: 1
     [x] Consume from another channel: 403 ACCESS_REFUSED",
    );
}

#[test]
fn a_message_without_an_acknowledgement_comes_again_and_one_with_two_costs_the_channel() {
    teaches(
        env!("CARGO_BIN_EXE_acknowledgements"),
        "
     [x] Receive one: delivery tag 1, redelivered false
     [x] Receive two: delivery tag 2, redelivered false
     [x] Receive three: delivery tag 3, redelivered false
     [x] Acknowledge two and all before it
     [x] Close the channel: messages ready: 1, consumers: 0
     [x] Receive three: delivery tag 1, redelivered true
     [x] Give it back (nack, requeue) and receive three: delivery tag 2, redelivered true
     [x] Reject it, without requeue: messages ready: 0, consumers: 1
     [x] Acknowledge twice: 406 PRECONDITION_FAILED
     [x] Acknowledge what was acknowledged automatically: 406 PRECONDITION_FAILED",
    );
}

#[test]
fn a_stream_ends_in_five_ways() {
    teaches(
        env!("CARGO_BIN_EXE_consumer_ends"),
        "
     [x] Cancel the consumer: the stream ends
     [x] Delete the queue: the stream ends
     [x] Close the channel: the stream ends
     [x] Make a mistake on the channel: Failed to receive: 406 PRECONDITION_FAILED
     [x] Close the connection: the stream ends",
    );
}

#[test]
fn a_queue_is_inspected_and_not_made() -> Result<()> {
    let vhost = node().vhost()?;
    let inspect = |args: &[&str]| {
        Program::new(env!("CARGO_BIN_EXE_inspect_queue")).args(["--url", &vhost.url()]).args(args).run()
    };

    let end = inspect(&["orders"]).expect_code(1);
    assert!(end.stdout.is_empty());
    assert!(end.stderr[0].starts_with("error: Failed to inspect a queue: 404 NOT_FOUND - no queue 'orders'"));
    assert!(vhost.queue("orders")?.is_none());

    for queue in ["orders", "ann-orders"] {
        node().put(&format!("/api/queues/{}/{queue}", vhost.name()), &json!({"durable": true}))?;
    }
    node().post(
        &format!("/api/exchanges/{}/amq.default/publish", vhost.name()),
        &json!({"properties": {}, "routing_key": "orders", "payload": "1", "payload_encoding": "string"}),
    )?;
    let end = inspect(&["orders"]).expect_code(0);
    assert_eq!(end.stdout, [" [x] orders: messages ready: 1, consumers: 0"]);
    let end = inspect(&["--prefix", "ann-", "orders"]).expect_code(0);
    assert_eq!(end.stdout, [" [x] ann-orders: messages ready: 0, consumers: 0"]);
    Ok(())
}

#[tokio::test]
async fn the_broker_has_the_arguments_under_their_names() -> Result<()> {
    let vhost = node().vhost()?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "test", &shutdown).await?;
    let arguments = Arguments::default()
        .classic()
        .message_ttl(Duration::from_secs(60))
        .expires(Duration::from_secs(90))
        .max_length(10)
        .max_length_bytes(u32::MAX)
        .overflow(Overflow::RejectPublish)
        .max_priority(9)
        .dead_letter_exchange("dead")
        .dead_letter_routing_key("letter");
    let declare = connection.session(async |session| {
        declare(&session.channel, "full", QueueDeclareOptions::durable(), arguments.clone()).await
    });
    declare.await?;
    shutdown.close_connections().await;
    let queue = vhost.queue("full")?.expect("it is durable");
    assert_eq!(
        queue["arguments"],
        json!({
            "x-queue-type": "classic",
            "x-message-ttl": 60000,
            "x-expires": 90000,
            "x-max-length": 10,
            "x-max-length-bytes": u32::MAX,
            "x-overflow": "reject-publish",
            "x-max-priority": 9,
            "x-dead-letter-exchange": "dead",
            "x-dead-letter-routing-key": "letter",
        })
    );
    for (flag, expected) in [("durable", true), ("exclusive", false), ("auto_delete", false)] {
        assert_eq!(queue[flag], expected, "{flag}");
    }
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2_before_anything_connects() {
    // Nothing listens there: a program that tried to connect would fail with 1, after ten seconds.
    let nowhere = ["--url", "amqp://127.0.0.1:1/%2f"];
    for (program, args) in [
        (env!("CARGO_BIN_EXE_inspect_queue"), &[][..]),
        (env!("CARGO_BIN_EXE_survive_restart"), &["perhaps"]),
        (env!("CARGO_BIN_EXE_limits"), &["3"]),
    ] {
        let end = Program::new(program).args(nowhere).args(args).run().expect_code(2);
        assert!(end.stdout.is_empty());
    }
    let end = Program::new(env!("CARGO_BIN_EXE_inspect_queue")).args(nowhere).arg("x".repeat(256)).run();
    assert!(end.expect_code(2).stderr[0].contains("is over 255 bytes"));
}

mod own_broker {
    use super::*;

    /// Durable things are there after a crash, and a lesson that the crash interrupted starts again.
    #[test]
    fn what_is_durable_survives_the_brokers_death_and_lessons_go_on() -> Result<()> {
        let node = Arc::new(Node::start()?);
        let url = node.url();
        let survive = |when| {
            Program::new(env!("CARGO_BIN_EXE_survive_restart"))
                .args(["--url", &url, "--prefix", "ann-", when])
                .run()
        };

        let end = survive("before").expect_code(0);
        assert_eq!(
            end.stdout,
            [
                " [x] Declare ann-survive_restart and publish a transient message and a persistent one",
                " [x] Declare ann-survive_restart-durable",
                " [x] Declare ann-survive_restart-transient",
                " [*] Restart the broker, then run survive_restart after",
            ]
        );

        node.write_out()?;

        // The line is told before the program goes on, and there is half a second of lesson left.
        let (killer, once) = (Arc::clone(&node), Once::new());
        let mut lesson = Program::new(env!("CARGO_BIN_EXE_limits"))
            .args(["--url", &url])
            .on_line(move |stream, line| {
                if stream == Stream::Stdout && line.starts_with(" [x] Send with") {
                    once.call_once(|| killer.kill().unwrap_or_else(|error| panic!("{error:#}")));
                }
            })
            .start();
        lesson.wait_for_error_line(|line| line.contains("connection lost"));
        node.restart()?;

        let end = lesson.wait(LIMIT).expect_code(0);
        let starts =
            end.stdout.iter().filter(|line| *line == " [x] Declare a queue with x-max-length 2").count();
        assert_eq!(starts, 2, "{:?}", end.stdout);
        assert!(end.stdout.last().is_some_and(|line| line.contains("x-mesage-ttl")));

        let end = survive("after").expect_code(0);
        let transient = match node.is_from(4, 3)? {
            true => {
                " [x] Exchange ann-survive_restart-transient: still there; RabbitMQ 4.3 and later keep it"
            }
            false => " [x] Exchange ann-survive_restart-transient: gone",
        };
        assert_eq!(
            end.stdout,
            [
                " [x] Queue ann-survive_restart: still there",
                " [x] Its transient message: gone",
                " [x] Its persistent message: still there",
                " [x] Exchange ann-survive_restart-durable: still there",
                transient,
            ]
        );
        // It removed what it looked for.
        assert_eq!(survive("after").expect_code(0).stdout[0], " [x] Queue ann-survive_restart: gone");
        Ok(())
    }
}
