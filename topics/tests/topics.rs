//! The two programs as processes, and the matching of patterns, against a real broker.

use std::time::{Duration, Instant};

use anyhow::Result;
use broker::{Node, Vhost, node};
use harness::{End, Program, Running};
use lapin::Channel;
use lapin::options::BasicGetOptions;
use lapin::types::ShortString;
use shared::{Connection, ConnectionArgs, Deadline, Shutdown};

const LIMIT: Duration = Duration::from_secs(30);
const WAITING: &str = " [*] Waiting for logs. To exit press CTRL+C";

fn emit(url: &str, args: &[&str]) -> End {
    Program::new(env!("CARGO_BIN_EXE_emit_log_topic")).args(["--url", url]).args(args).run()
}

fn receiver(url: &str, args: &[&str]) -> Running {
    Program::new(env!("CARGO_BIN_EXE_receive_logs_topic")).args(["--url", url]).args(args).start()
}

/// A receiver that is ready, and the name of its queue.
fn ready_receiver(url: &str, patterns: &[&str]) -> (Running, String) {
    let mut receiver = receiver(url, patterns);
    let queue = binding_lines(&mut receiver, "logs_topic", patterns);
    receiver.expect_line(WAITING);
    (receiver, queue)
}

/// Expects a binding line for each pattern; the queue that they name.
fn binding_lines(receiver: &mut Running, exchange: &str, patterns: &[&str]) -> String {
    let mut queue = String::new();
    for pattern in patterns {
        let line = receiver.wait_for_line(|_| true);
        queue = line.split(' ').nth(2).expect("a binding line").to_owned();
        assert!(queue.starts_with("amq.gen-"), "{line}");
        assert_eq!(line, format!("Binding queue {queue} to exchange {exchange} with routing key {pattern}"));
    }
    queue
}

fn stop(mut receiver: Running) -> End {
    receiver.interrupt();
    receiver.wait(LIMIT).expect_code(0)
}

#[test]
fn a_receiver_prints_what_matches_one_of_its_patterns_and_each_line_once() -> Result<()> {
    let vhost = node().vhost()?;
    let (mut receiver, _) = ready_receiver(&vhost.url(), &["kern.*", "*.critical"]);

    // The first matches both patterns; the second's last word is empty; the third has one word too few.
    for key in ["kern.critical", "kern.", "kern"] {
        let end = emit(&vhost.url(), &[key, "A critical kernel error"]).expect_code(0);
        assert_eq!(end.stdout, [" [x] Sent A critical kernel error"]);
    }
    emit(&vhost.url(), &["cron.critical", "the last"]).expect_code(0);

    receiver.expect_line(" [x] A critical kernel error");
    receiver.expect_line(" [x] A critical kernel error");
    receiver.expect_line(" [x] the last");
    assert_eq!(stop(receiver).stdout.len(), 6);
    Ok(())
}

/// Patterns, then for each key which of them match it.
const PATTERNS: [&str; 13] = [
    "#",
    "*",
    "*.*",
    "kern.*",
    "kern.#",
    "*.critical",
    "#.critical",
    "kern.critical",
    "*.orange.*",
    "*.*.rabbit",
    "lazy.#",
    "a.#.z",
    "",
];
const MATCHES: [(&str, &[&str]); 17] = [
    ("kern", &["#", "*", "kern.#"]),
    ("kern.critical", &["#", "*.*", "kern.*", "kern.#", "*.critical", "#.critical", "kern.critical"]),
    ("kern.a.b", &["#", "kern.#"]),
    // An empty word is a word.
    ("kern.", &["#", "*.*", "kern.*", "kern.#"]),
    (".critical", &["#", "*.*", "*.critical", "#.critical"]),
    ("..", &["#"]),
    ("critical", &["#", "*", "#.critical"]),
    ("kern.a.critical", &["#", "kern.#", "#.critical"]),
    // Matching is exact to the byte.
    ("Kern.critical", &["#", "*.*", "*.critical", "#.critical"]),
    ("quick.orange.rabbit", &["#", "*.orange.*", "*.*.rabbit"]),
    ("lazy.orange.elephant", &["#", "*.orange.*", "lazy.#"]),
    ("lazy.brown.quick.fox", &["#", "lazy.#"]),
    ("a.z", &["#", "*.*", "a.#.z"]),
    ("a.b.c.z", &["#", "a.#.z"]),
    // No words at all.
    ("", &["#", ""]),
    // In the key of a message the wildcards are words like others.
    ("#", &["#", "*"]),
    ("kern.*", &["#", "*.*", "kern.*", "kern.#"]),
];

#[tokio::test]
async fn a_star_is_one_word_and_a_hash_is_any_number_of_words() -> Result<()> {
    let vhost = node().vhost()?;
    in_session(&vhost, async |channel| {
        topics::declare(channel, "logs_topic").await?;
        let mut queues = Vec::new();
        for pattern in PATTERNS {
            let queue = topics::declare_queue(channel).await?;
            topics::bind(channel, &queue, "logs_topic", &pattern.into()).await?;
            queues.push(queue);
        }
        for (key, matching) in MATCHES {
            // Once it is confirmed it is in all queues that it belongs in.
            topics::emit(channel, "logs_topic", &key.into(), key, "", false).await?;
            for (pattern, queue) in PATTERNS.iter().zip(&queues) {
                let delivered = take(channel, queue).await?;
                assert_eq!(delivered, matching.contains(pattern), "pattern '{pattern}', key '{key}'");
            }
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn two_patterns_of_one_queue_that_match_make_one_copy() -> Result<()> {
    let vhost = node().vhost()?;
    in_session(&vhost, async |channel| {
        topics::declare(channel, "logs_topic").await?;
        let queue = topics::declare_queue(channel).await?;
        for pattern in ["kern.*", "*.critical", "#", "kern.critical"] {
            topics::bind(channel, &queue, "logs_topic", &pattern.into()).await?;
        }
        topics::emit(channel, "logs_topic", &"kern.critical".into(), "once", "", true).await?;
        assert!(take(channel, &queue).await?);
        assert!(!take(channel, &queue).await?);
        Ok(())
    })
    .await
}

/// Takes a message from the queue, if there is one.
async fn take(channel: &Channel, queue: &ShortString) -> shared::Result<bool> {
    let got = channel.basic_get(queue.clone(), BasicGetOptions { no_ack: true });
    Ok(got.deadline("get a message").await?.is_some())
}

async fn in_session(
    vhost: &Vhost<'_>,
    mut body: impl AsyncFnMut(&Channel) -> shared::Result<()>,
) -> Result<()> {
    let shutdown = Shutdown::new();
    let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "test", &shutdown).await?;
    connection.session(async |session| body(&session.channel).await).await?;
    shutdown.close_connections().await;
    Ok(())
}

#[test]
fn a_mandatory_line_that_matches_no_pattern_comes_back() -> Result<()> {
    let vhost = node().vhost()?;
    let (mut receiver, _) = ready_receiver(&vhost.url(), &["anonymous.#"]);

    let end = emit(&vhost.url(), &["--mandatory", "kern", "A critical kernel error"]).expect_code(1);
    assert!(end.stdout.is_empty());
    assert!(end.stderr[0].starts_with(
        "error: the message was returned: 312 NO_ROUTE (exchange 'logs_topic', routing key 'kern');"
    ));

    let end = emit(&vhost.url(), &["--mandatory"]).expect_code(0);
    assert_eq!(end.stdout, [" [x] Sent hello"]);
    receiver.expect_line(" [x] hello");
    Ok(())
}

#[test]
fn a_line_without_a_receiver_is_gone_and_the_exchange_stays() -> Result<()> {
    let vhost = node().vhost()?;
    emit(&vhost.url(), &["kern.info", "too early"]).expect_code(0);
    let exchange = node().get(&format!("/api/exchanges/{}/logs_topic", vhost.name()))?;
    assert_eq!(exchange["type"], "topic");
    for (flag, expected) in [("durable", true), ("auto_delete", false), ("internal", false)] {
        assert_eq!(exchange[flag], expected, "{flag}");
    }

    let (mut receiver, queue) = ready_receiver(&vhost.url(), &["#"]);
    emit(&vhost.url(), &["kern.info", "in time"]).expect_code(0);
    receiver.expect_line(" [x] in time");

    let declared = vhost.queue(&queue)?.expect("the receiver runs");
    for (flag, expected) in [("durable", false), ("exclusive", true), ("auto_delete", false)] {
        assert_eq!(declared[flag], expected, "{flag}");
    }
    assert_eq!(vhost.consumers()?[0]["ack_required"], false);
    stop(receiver);
    // RabbitMQ 4.3 deletes the queues of a connection some time after the connection has gone.
    let deadline = Instant::now() + Duration::from_secs(10);
    while vhost.queue(&queue)?.is_some() {
        assert!(Instant::now() < deadline, "{queue} is still there");
    }
    Ok(())
}

#[test]
fn a_prefix_keeps_two_rooms_apart() -> Result<()> {
    let vhost = node().vhost()?;
    let (plain, _) = ready_receiver(&vhost.url(), &["#"]);
    let mut anns = receiver(&vhost.url(), &["--prefix", "ann-", "#"]);
    binding_lines(&mut anns, "ann-logs_topic", &["#"]);
    anns.expect_line(WAITING);

    emit(&vhost.url(), &["--prefix", "ann-", "kern.info", "for Ann"]).expect_code(0);
    anns.expect_line(" [x] for Ann");
    assert_eq!(stop(plain).stdout.len(), 2);
    Ok(())
}

#[test]
fn a_body_that_is_no_text_is_printed_as_far_as_it_goes() -> Result<()> {
    let vhost = node().vhost()?;
    let (mut receiver, _) = ready_receiver(&vhost.url(), &["#"]);
    for payload in ["/2hp", ""] {
        node().post(
            &format!("/api/exchanges/{}/logs_topic/publish", vhost.name()),
            &serde_json::json!({
                "properties": {}, "routing_key": "a.b", "payload": payload, "payload_encoding": "base64",
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
    assert!(end.stderr.contains(&"Usage: receive_logs_topic [binding_key]...".to_owned()));

    let long = "x".repeat(256);
    for end in [emit(nowhere, &[&long]), receiver(nowhere, &["#", &long]).wait(LIMIT)] {
        let end = end.expect_code(2);
        assert!(end.stderr[0].ends_with("a key has at most 255 bytes, and this one has 256"));
    }
}

mod own_broker {
    use super::*;

    #[test]
    fn receivers_come_back_after_the_broker_was_killed() -> Result<()> {
        let node = Node::start()?;
        let (mut kernel, first) = ready_receiver(&node.url(), &["kern.*"]);
        let (mut all, _) = ready_receiver(&node.url(), &["#"]);
        emit(&node.url(), &["kern.warn", "before"]).expect_code(0);
        for receiver in [&mut kernel, &mut all] {
            receiver.expect_line(" [x] before");
        }

        node.kill()?;
        node.restart()?;
        for receiver in [&mut kernel, &mut all] {
            receiver.wait_for_error_line(|line| line.ends_with(WAITING));
        }
        emit(&node.url(), &["--mandatory", "kern.warn", "after"]).expect_code(0);
        for receiver in [&mut kernel, &mut all] {
            receiver.expect_line(" [x] after");
        }
        // Each has a new queue, which only the log tells about.
        let end = stop(kernel);
        let bound: Vec<_> = end.stderr.iter().filter(|line| line.contains("Binding queue")).collect();
        assert!(matches!(&bound[..], [line] if !line.contains(&first)), "{bound:?}");
        Ok(())
    }
}
