//! The two programs as processes against a real broker.

use std::time::{Duration, Instant};

use anyhow::Result;
use broker::{Node, node};
use harness::{End, Program, Running};

const LIMIT: Duration = Duration::from_secs(30);
const WAITING: &str = " [*] Waiting for logs. To exit press CTRL+C";

fn emit(url: &str, args: &[&str]) -> End {
    Program::new(env!("CARGO_BIN_EXE_emit_log_direct")).args(["--url", url]).args(args).run()
}

fn receiver(url: &str, args: &[&str]) -> Running {
    Program::new(env!("CARGO_BIN_EXE_receive_logs_direct")).args(["--url", url]).args(args).start()
}

/// A receiver that is ready, and the name of its queue.
fn ready_receiver(url: &str, severities: &[&str]) -> (Running, String) {
    let mut receiver = receiver(url, severities);
    let queue = binding_lines(&mut receiver, "logs_direct", severities);
    receiver.expect_line(WAITING);
    (receiver, queue)
}

/// Expects a binding line for each severity; the queue that they name.
fn binding_lines(receiver: &mut Running, exchange: &str, severities: &[&str]) -> String {
    let mut queue = String::new();
    for severity in severities {
        let line = receiver.wait_for_line(|_| true);
        queue = line.split(' ').nth(2).expect("a binding line").to_owned();
        assert!(queue.starts_with("amq.gen-"), "{line}");
        assert_eq!(line, format!("Binding queue {queue} to exchange {exchange} with routing key {severity}"));
    }
    queue
}

fn stop(mut receiver: Running) -> End {
    receiver.interrupt();
    receiver.wait(LIMIT).expect_code(0)
}

#[test]
fn a_receiver_prints_the_severities_that_it_asked_for_and_no_others() -> Result<()> {
    let vhost = node().vhost()?;
    let (mut receiver, _) = ready_receiver(&vhost.url(), &["info", "warn"]);

    for (severity, body) in
        [("warn", "a warning"), ("info", "a info"), ("error", "a error"), ("info", "the last")]
    {
        // "Sent" says nothing about a receiver: there is none for errors.
        let end = emit(&vhost.url(), &[severity, body]).expect_code(0);
        assert_eq!(end.stdout, [format!(" [x] Sent {body}")]);
    }
    receiver.expect_line(" [x] a warning");
    receiver.expect_line(" [x] a info");
    receiver.expect_line(" [x] the last");
    assert_eq!(stop(receiver).stdout.len(), 6);
    Ok(())
}

#[test]
fn two_queues_with_the_same_key_both_get_the_line() -> Result<()> {
    let vhost = node().vhost()?;
    let (mut both, first) = ready_receiver(&vhost.url(), &["info", "error"]);
    let (mut errors, second) = ready_receiver(&vhost.url(), &["error"]);
    assert_ne!(first, second);

    emit(&vhost.url(), &["error", "disk", "full"]).expect_code(0);
    emit(&vhost.url(), &[]).expect_code(0);
    emit(&vhost.url(), &["error", "bye"]).expect_code(0);
    for line in [" [x] disk full", " [x] hello", " [x] bye"] {
        both.expect_line(line);
    }
    for line in [" [x] disk full", " [x] bye"] {
        errors.expect_line(line);
    }
    Ok(())
}

#[test]
fn a_mandatory_line_that_nobody_asked_for_comes_back() -> Result<()> {
    let vhost = node().vhost()?;
    let (mut receiver, _) = ready_receiver(&vhost.url(), &["info"]);

    let end = emit(&vhost.url(), &["--mandatory", "error", "a error"]).expect_code(1);
    assert!(end.stdout.is_empty());
    assert!(end.stderr[0].starts_with(
        "error: the message was returned: 312 NO_ROUTE (exchange 'logs_direct', routing key 'error');"
    ));

    emit(&vhost.url(), &["--mandatory", "info", "a info"]).expect_code(0);
    receiver.expect_line(" [x] a info");
    Ok(())
}

#[test]
fn a_line_without_a_receiver_is_gone_and_the_exchange_stays() -> Result<()> {
    let vhost = node().vhost()?;
    emit(&vhost.url(), &["info", "too early"]).expect_code(0);
    let exchange = node().get(&format!("/api/exchanges/{}/logs_direct", vhost.name()))?;
    assert_eq!(exchange["type"], "direct");
    for (flag, expected) in [("durable", true), ("auto_delete", false), ("internal", false)] {
        assert_eq!(exchange[flag], expected, "{flag}");
    }

    let (mut receiver, queue) = ready_receiver(&vhost.url(), &["info"]);
    emit(&vhost.url(), &["info", "in time"]).expect_code(0);
    receiver.expect_line(" [x] in time");

    let declared = vhost.queue(&queue)?.expect("the receiver runs");
    for (flag, expected) in [("durable", false), ("exclusive", true), ("auto_delete", false)] {
        assert_eq!(declared[flag], expected, "{flag}");
    }
    assert_eq!(vhost.consumers()?[0]["ack_required"], false);
    stop(receiver);
    // RabbitMQ 4.3 deletes the queues of a connection some time after the connection has gone.
    let deadline = Instant::now() + LIMIT;
    while vhost.queue(&queue)?.is_some() {
        assert!(Instant::now() < deadline, "{queue} is still there");
    }
    Ok(())
}

#[test]
fn a_prefix_keeps_two_rooms_apart() -> Result<()> {
    let vhost = node().vhost()?;
    let (plain, _) = ready_receiver(&vhost.url(), &["info"]);
    let mut anns = receiver(&vhost.url(), &["--prefix", "ann-", "info"]);
    binding_lines(&mut anns, "ann-logs_direct", &["info"]);
    anns.expect_line(WAITING);

    emit(&vhost.url(), &["--prefix", "ann-", "info", "for Ann"]).expect_code(0);
    anns.expect_line(" [x] for Ann");
    assert_eq!(stop(plain).stdout.len(), 2);
    Ok(())
}

#[test]
fn a_body_that_is_no_text_is_printed_as_far_as_it_goes() -> Result<()> {
    let vhost = node().vhost()?;
    let (mut receiver, _) = ready_receiver(&vhost.url(), &["info"]);
    for payload in ["/2hp", ""] {
        node().post(
            &format!("/api/exchanges/{}/logs_direct/publish", vhost.name()),
            &serde_json::json!({
                "properties": {}, "routing_key": "info", "payload": payload, "payload_encoding": "base64",
            }),
        )?;
    }
    receiver.expect_line(" [x] \u{fffd}hi");
    receiver.expect_line(" [x] ");
    receiver.terminate();
    receiver.wait(LIMIT).expect_code(0);
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2_before_anything_connects() {
    // Nothing listens there: a program that tried to connect would fail with 1, after ten seconds.
    let nowhere = "amqp://127.0.0.1:1/%2f";
    let end = receiver(nowhere, &[]).wait(LIMIT).expect_code(2);
    assert!(end.stdout.is_empty());
    assert!(end.stderr.contains(&"Usage: receive_logs_direct [info] [warning] [error]".to_owned()));

    let long = "x".repeat(256);
    for end in [emit(nowhere, &[&long]), receiver(nowhere, &["info", &long]).wait(LIMIT)] {
        let end = end.expect_code(2);
        assert!(end.stderr[0].ends_with("a key has at most 255 bytes, and this one has 256"));
    }
}

mod own_broker {
    use super::*;

    #[test]
    fn receivers_come_back_after_the_broker_was_killed() -> Result<()> {
        let node = Node::start()?;
        let (mut warnings, first) = ready_receiver(&node.url(), &["warn"]);
        let (mut both, _) = ready_receiver(&node.url(), &["info", "warn"]);
        emit(&node.url(), &["warn", "before"]).expect_code(0);
        for receiver in [&mut warnings, &mut both] {
            receiver.expect_line(" [x] before");
        }

        node.kill()?;
        node.restart()?;
        for receiver in [&mut warnings, &mut both] {
            receiver.wait_for_error_line(|line| line.ends_with(WAITING));
        }
        emit(&node.url(), &["--mandatory", "warn", "after"]).expect_code(0);
        for receiver in [&mut warnings, &mut both] {
            receiver.expect_line(" [x] after");
        }
        // Each has a new queue, which only the log tells about.
        let end = stop(warnings);
        let bound: Vec<_> = end.stderr.iter().filter(|line| line.contains("Binding queue")).collect();
        assert!(matches!(&bound[..], [line] if !line.contains(&first)), "{bound:?}");
        Ok(())
    }
}
