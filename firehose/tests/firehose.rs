//! `trace_tail` against a real broker.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use broker::{Node, Vhost, node};
use harness::{Program, Relay, Running};
use lapin::BasicProperties;
use lapin::options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use shared::{
    Connection, ConnectionArgs, Deadline, Message, Outcome, Publisher, QueueType, Session, Shutdown,
};

const TRACE_TAIL: &str = env!("CARGO_BIN_EXE_trace_tail");
const READY: &str = " [*] Waiting for traces. To exit press CTRL+C";

/// The lines of a record with a body of one line.
const RECORD: usize = 15;

const LIMIT: Duration = Duration::from_secs(30);

/// Asks again until `holds` is true.
async fn eventually(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !holds()? {
        anyhow::ensure!(since.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn trace_tail(url: &str, args: &[&str]) -> Running {
    let mut tail = Program::new(TRACE_TAIL).args(["--url", url]).args(args).start();
    tail.expect_line(READY);
    tail
}

fn trace(node: &Node, vhost: &Vhost<'_>, command: &str) -> Result<()> {
    node.rabbitmqctl(&[command, "-p", vhost.name()]).map(drop)
}

fn is_traced(node: &Node, vhost: &Vhost<'_>) -> Result<bool> {
    let entry = node.get(&format!("/api/vhosts/{}", vhost.name()))?;
    entry["tracing"].as_bool().context("tracing is true or false")
}

/// A client beside the tail.
struct Client {
    connection: Connection,
    publisher: Publisher,
}

impl Client {
    async fn open(url: &str) -> Result<Self> {
        let connection = Connection::open(&ConnectionArgs::for_url(url), "client", &Shutdown::new()).await?;
        let publisher = Publisher::new(&connection, 1);
        Ok(Self { connection, publisher })
    }

    async fn publish(&self, exchange: &str, routing_key: &str, body: &[u8]) -> Result<()> {
        self.publish_with(exchange, routing_key, body, BasicProperties::default()).await
    }

    async fn publish_with(
        &self,
        exchange: &str,
        key: &str,
        body: &[u8],
        properties: BasicProperties,
    ) -> Result<()> {
        let message = Message { exchange, routing_key: key, mandatory: false, properties, body };
        match self.publisher.publish(&message).await {
            Outcome::Confirmed => Ok(()),
            outcome => anyhow::bail!("{outcome:?}"),
        }
    }

    async fn declare(&self, queue: &str) -> Result<()> {
        let declared = self.connection.session(async |session: Session| {
            let kind = QueueType::Classic;
            let declared = session.channel.queue_declare(queue.into(), kind.options(), kind.arguments());
            declared.deadline("declare a queue").await.map(drop)
        });
        Ok(declared.await?)
    }

    async fn bind(&self, exchange: &str, queue: &str) -> Result<()> {
        let bound = self.connection.session(async |session: Session| {
            let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
            let kind = lapin::ExchangeKind::Fanout;
            let declared =
                session.channel.exchange_declare(exchange.into(), kind, options, FieldTable::default());
            declared.deadline("declare an exchange").await?;
            let options = QueueBindOptions::default();
            let bound = session.channel.queue_bind(
                queue.into(),
                exchange.into(),
                "".into(),
                options,
                FieldTable::default(),
            );
            bound.deadline("bind a queue").await
        });
        Ok(bound.await?)
    }

    /// Gets one message from a queue.
    async fn receive(&self, queue: &str) -> Result<()> {
        let received = self.connection.session(async |session: Session| {
            let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
            let consumer =
                session.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
            let mut consumer = consumer.deadline("register a consumer").await?;
            session.next(&mut consumer).await.map(drop)
        });
        Ok(received.await?)
    }
}

/// What a tail has printed, as "published EXCHANGE BODY" and "received QUEUE BODY".
fn records(lines: &[String]) -> Vec<String> {
    let starts = lines.iter().enumerate().filter(|(_, line)| line.starts_with("====")).map(|(at, _)| at);
    starts.filter_map(|at| summary(&lines[at..lines.len().min(at + RECORD - 1)])).collect()
}

fn summary(record: &[String]) -> Option<String> {
    let field = |label: &str| record.iter().find_map(|line| line.strip_prefix(label)).map(str::trim);
    let body = record.last()?;
    match record.get(1)?.rsplit_once(' ')?.1 {
        "published" => Some(format!("published '{}' {body}", field("Exchange:")?)),
        _ => Some(format!("received '{}' {body}", field("Queue:")?)),
    }
}

/// Waits for the record with this body, which must be the last one, and returns all of them.
fn records_up_to(tail: &mut Running, body: &str) -> Vec<String> {
    tail.wait_for_line(|line| line == body);
    tail.interrupt();
    records(&tail.wait(LIMIT).expect_code(0).stdout)
}

/// Checks the next lines of a tail. `*` in the expected ones stands for anything.
fn expect_record(tail: &mut Running, expected: &[&str; RECORD - 1]) {
    for pattern in expected {
        let line = tail.wait_for_line(|_| true);
        let fits = match pattern.split_once('*') {
            Some((start, end)) => line.starts_with(start) && line.ends_with(end),
            None => line == *pattern,
        };
        assert!(fits, "expected {pattern:?}, got {line:?}");
    }
}

#[tokio::test]
async fn a_message_is_printed_when_it_comes_in_and_when_it_goes_out() -> Result<()> {
    let vhost = node().vhost()?;
    trace(node(), &vhost, "trace_on")?;
    let mut tail = trace_tail(&vhost.url(), &[]);
    let client = Client::open(&vhost.url()).await?;
    client.declare("hello").await?;
    let properties = BasicProperties::default().with_content_type("text/plain".into());
    client.publish_with("", "hello", b"Hello World!", properties).await?;
    let rule = "=".repeat(80);
    let connection = format!("Connection:   127.0.0.1:* -> 127.0.0.1:{}", node().port());
    let name = format!("Node:         {}", node().name());
    let host = format!("Virtual host: {}", vhost.name());
    let published = [
        "",
        &rule,
        "20*Z: Message published",
        "",
        &name,
        &connection,
        &host,
        "User:         guest",
        "Channel:      *",
        "Exchange:     ",
        r#"Routing keys: [<<"hello">>]"#,
        r#"Routed queues: [<<"hello">>]"#,
        r#"Properties:   [{<<"content_type">>,longstr,<<"text/plain">>}]"#,
        "Payload: ",
    ];
    expect_record(&mut tail, &published);
    tail.expect_line("Hello World!");
    client.receive("hello").await?;
    let mut received = published;
    received[2] = "20*Z: Message received";
    received[11] = "Queue:        hello";
    expect_record(&mut tail, &received);
    tail.expect_line("Hello World!");
    tail.interrupt();
    let end = tail.wait(LIMIT).expect_code(0);
    assert!(end.stderr.is_empty(), "{end:?}");
    Ok(())
}

#[tokio::test]
async fn bodies_and_properties_of_any_kind_are_printed() -> Result<()> {
    let vhost = node().vhost()?;
    trace(node(), &vhost, "trace_on")?;
    let mut tail = trace_tail(&vhost.url(), &[]);
    let client = Client::open(&vhost.url()).await?;
    let mut headers = FieldTable::default();
    headers.insert("n".into(), 7.into());
    let properties = BasicProperties::default().with_headers(headers).with_delivery_mode(2).with_priority(3);
    client.publish_with("", "nobody", b"\xff\xfe\x00", properties).await?;
    client.publish("", "nobody", b"").await?;
    client.publish("", "nobody", "two\nlines".as_bytes()).await?;
    client.publish("", "nobody", &vec![b'x'; 300_000]).await?;

    let long = tail.wait_for_line(|line| line.starts_with("xxx"));
    assert_eq!(long.len(), 300_000);
    tail.terminate();
    let lines = tail.wait(LIMIT).expect_code(0).stdout;
    let has = |line: &str| assert!(lines.iter().any(|each| each == line), "{line:?} in {:?}", &lines[..60]);
    has(r#"Routing keys: [<<"nobody">>]"#);
    has(
        r#"Properties:   [{<<"delivery_mode">>,signedint,2},{<<"headers">>,table,[{<<"n">>,signedint,7}]},{<<"priority">>,signedint,3}]"#,
    );
    has("Properties:   []");
    has("\u{fffd}\u{fffd}\0");
    let at = lines.iter().position(|line| line == "two").context("two")?;
    assert_eq!(lines[at + 1], "lines");
    Ok(())
}

#[tokio::test]
async fn filters_let_through_what_they_name_and_nothing_else() -> Result<()> {
    let vhost = node().vhost()?;
    trace(node(), &vhost, "trace_on")?;
    let url = vhost.url();
    let client = Client::open(&url).await?;
    // A queue may be called like a wildcard.
    for queue in ["ann-log", "ann-*", "ann-other"] {
        client.declare(queue).await?;
    }
    client.bind("ann-logs", "ann-log").await?;
    let cases = [
        (
            &["--exchange", "logs"][..],
            "end of logs",
            &["published 'ann-logs' 2", "published 'ann-logs' end of logs"][..],
        ),
        (
            &["--exchange", ""],
            "end of default",
            &["published '' 1", "published '' end of other", "published '' end of default"],
        ),
        (&["--queue", "log"], "end of logs", &["received 'ann-log' 2", "received 'ann-log' end of logs"]),
        (&["--queue", "*"], "end of star", &["received 'ann-*' end of star"]),
        (
            &["--exchange", "logs", "--queue", "log", "--queue", "other"],
            "end of other",
            &[
                "published 'ann-logs' 2",
                "received 'ann-log' 2",
                "published 'ann-logs' end of logs",
                "received 'ann-log' end of logs",
                "received 'ann-other' end of other",
            ],
        ),
    ];
    let mut tails = Vec::new();
    for (args, end, expected) in cases {
        tails.push((trace_tail(&url, &[&["--prefix", "ann-"], args].concat()), end, expected));
    }
    client.publish("", "nobody", b"1").await?;
    for body in ["2", "end of logs"] {
        client.publish("ann-logs", "", body.as_bytes()).await?;
        client.receive("ann-log").await?;
    }
    client.publish("", "ann-other", b"end of other").await?;
    client.receive("ann-other").await?;
    client.publish("", "nobody", b"end of default").await?;
    client.publish("amq.fanout", "", b"unseen").await?;
    client.bind("ann-stars", "ann-*").await?;
    client.publish("ann-stars", "", b"end of star").await?;
    client.receive("ann-*").await?;
    for (mut tail, end, expected) in tails {
        assert_eq!(records_up_to(&mut tail, end), expected);
    }
    Ok(())
}

#[tokio::test]
async fn tails_see_neither_each_others_probes_nor_traces_of_traces() -> Result<()> {
    let vhost = node().vhost()?;
    trace(node(), &vhost, "trace_on")?;
    let mut tails: Vec<_> = (0..3).map(|_| trace_tail(&vhost.url(), &[])).collect();
    let client = Client::open(&vhost.url()).await?;
    // Nobody can forge a trace: the exchange is internal.
    let forged = client.publish(firehose::EXCHANGE, "publish.x", b"forged").await;
    assert!(forged.is_err_and(|error| error.to_string().contains("internal exchange")));
    client.publish("", "nobody", b"one").await?;
    client.publish("", "nobody", b"two").await?;
    for tail in &mut tails {
        assert_eq!(records_up_to(tail, "two"), ["published '' one", "published '' two"]);
        assert!(tail.stderr().is_empty(), "{:?}", tail.stderr());
    }
    assert!(vhost.queues()?.is_empty(), "left behind");
    Ok(())
}

#[tokio::test]
async fn a_tail_says_that_tracing_is_off_and_goes_on_once_it_is_on() -> Result<()> {
    let vhost = node().vhost()?;
    let client = Client::open(&vhost.url()).await?;
    let mut all = trace_tail(&vhost.url(), &[]);
    let mut one = trace_tail(&vhost.url(), &["--queue", "q"]);
    let off = format!(
        " WARN tracing is off in the vhost '{0}', so there is nothing to see: turn it on with \
         `rabbitmqctl trace_on -p {0}`, and afterwards off with trace_off",
        vhost.name()
    );
    for tail in [&mut all, &mut one] {
        assert_eq!(tail.wait_for_error_line(|_| true), off);
    }
    client.declare("q").await?;
    client.publish("", "q", b"before").await?;
    client.receive("q").await?;
    trace(node(), &vhost, "trace_on")?;
    client.publish("", "q", b"after").await?;
    client.receive("q").await?;
    client.publish("", "nobody", b"end").await?;
    let expected = ["published '' after", "received 'q' after", "published '' end"];
    assert_eq!(records_up_to(&mut all, "end"), expected);
    assert_eq!(records_up_to(&mut one, "after"), ["received 'q' after"]);
    Ok(())
}

#[tokio::test]
async fn the_probe_needs_no_binding_once_it_is_answered_and_the_queue_is_exclusive() -> Result<()> {
    let vhost = node().vhost()?;
    trace(node(), &vhost, "trace_on")?;
    let tail = trace_tail(&vhost.url(), &["--exchange", "logs"]);
    let traced = || -> Result<Vec<_>> {
        Ok(vhost.bindings()?.into_iter().filter(|binding| binding["source"] == firehose::EXCHANGE).collect())
    };
    eventually("one binding", || Ok(traced()?.len() == 1)).await?;
    assert_eq!(traced()?[0]["routing_key"], "publish.logs");
    let queues = vhost.queues()?;
    assert_eq!(queues.len(), 1, "{queues:?}");
    assert_eq!(queues[0]["exclusive"], true);
    assert_eq!(queues[0]["arguments"]["x-max-length-bytes"], 64 * 1024 * 1024);
    // Nothing of the probe stays, and nothing of the tail.
    tail.interrupt();
    let mut tail = tail;
    tail.wait(LIMIT).expect_code(0);
    // RabbitMQ 4.3 is not done with it at once.
    eventually("no queue", || Ok(vhost.queues()?.is_empty())).await
}

#[tokio::test]
async fn what_a_transaction_takes_back_is_traced_all_the_same() -> Result<()> {
    let vhost = node().vhost()?;
    trace(node(), &vhost, "trace_on")?;
    let mut tail = trace_tail(&vhost.url(), &[]);
    let client = Client::open(&vhost.url()).await?;
    client.declare("q").await?;
    let count = client.connection.session(async |session: Session| {
        let channel = &session.channel;
        channel.tx_select().deadline("switch on transactions").await?;
        let properties = BasicProperties::default();
        let published =
            channel.basic_publish("".into(), "q".into(), Default::default(), b"undone", properties);
        published.deadline("publish a message").await?;
        channel.tx_rollback().deadline("roll the transaction back").await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare("q".into(), passive, FieldTable::default());
        Ok(found.deadline("look at a queue").await?.message_count())
    });
    assert_eq!(count.await?, 0);
    assert_eq!(records_up_to(&mut tail, "undone"), ["published '' undone"]);
    Ok(())
}

#[tokio::test]
async fn messages_that_pass_while_no_tail_is_bound_are_not_kept() -> Result<()> {
    let vhost = node().vhost()?;
    trace(node(), &vhost, "trace_on")?;
    let client = Client::open(&vhost.url()).await?;
    client.publish("", "nobody", b"early").await?;
    let mut tail = trace_tail(&vhost.url(), &[]);
    client.publish("", "nobody", b"late").await?;
    assert_eq!(records_up_to(&mut tail, "late"), ["published '' late"]);
    Ok(())
}

#[tokio::test]
async fn enable_turns_tracing_on_and_puts_back_what_was_before() -> Result<()> {
    let vhost = node().vhost()?;
    let entry = format!("/api/vhosts/{}", vhost.name());
    node().put(&entry, &serde_json::json!({"description": "a lab", "tags": "lab,course"}))?;
    let settings = |entry: &serde_json::Value| (entry["description"].clone(), entry["tags"].clone());
    let before = settings(&node().get(&entry)?);
    let client = Client::open(&vhost.url()).await?;
    let management = node().management_url();
    let enable = ["--enable", "--management-url", &management];
    for (was_on, stop) in [(false, Running::interrupt as fn(&Running)), (true, Running::terminate)] {
        trace(node(), &vhost, if was_on { "trace_on" } else { "trace_off" })?;
        let mut tail = trace_tail(&vhost.url(), &enable);
        assert!(is_traced(node(), &vhost)?);
        client.publish("", "nobody", b"seen").await?;
        tail.wait_for_line(|line| line == "seen");
        stop(&tail);
        let end = tail.wait(LIMIT).expect_code(0);
        assert_eq!(records(&end.stdout), ["published '' seen"]);
        assert_eq!(is_traced(node(), &vhost)?, was_on, "{end:?}");
        assert_eq!(end.stderr.iter().any(|line| line.contains("tracing is off again")), !was_on, "{end:?}");
        assert_eq!(settings(&node().get(&entry)?), before);
    }
    Ok(())
}

#[test]
fn an_error_puts_tracing_back_too() -> Result<()> {
    let vhost = node().vhost()?;
    let relay = Relay::start(("127.0.0.1", node().port()))?;
    let url = vhost.url_through(relay.port());
    let management = node().management_url();
    let mut tail =
        trace_tail(&url, &["--enable", "--management-url", &management, "--reconnect-attempts", "2"]);
    assert!(is_traced(node(), &vhost)?);
    relay.refuse(true);
    relay.cut();
    tail.wait(LIMIT).expect_code(1);
    assert!(!is_traced(node(), &vhost)?);
    Ok(())
}

#[tokio::test]
async fn a_reader_that_goes_away_puts_tracing_back_too() -> Result<()> {
    let vhost = node().vhost()?;
    let client = Client::open(&vhost.url()).await?;
    let (url, management) = (vhost.url(), node().management_url());
    let mut tail = Program::new("sh")
        .args(["-c", r#""$0" "$@" | head -1"#, TRACE_TAIL, "--url", &url, "--enable"])
        .args(["--management-url", &management])
        .start();
    tail.expect_line(READY);
    assert!(is_traced(node(), &vhost)?);
    // It shows when there is something to print.
    client.publish("", "nobody", b"seen").await?;
    tail.wait(LIMIT).expect_code(0);
    assert!(!is_traced(node(), &vhost)?);
    Ok(())
}

#[test]
fn an_enable_that_fails_says_what_to_do() -> Result<()> {
    let vhost = node().vhost()?;
    let user = format!("watcher-{}", vhost.name());
    node().rabbitmqctl(&["add_user", &user, "p@ss:word"])?;
    node().rabbitmqctl(&["set_permissions", "-p", vhost.name(), &user, ".*", ".*", ".*"])?;
    let url = format!("amqp://{user}:p%40ss%3Aword@127.0.0.1:{}/{}", node().port(), vhost.name());
    let management = node().management_url();
    let nowhere = format!("http://127.0.0.1:{}", broker::free_port()?);
    for (management, words) in [
        (&management, format!("the user '{user}' needs the tag administrator")),
        (&nowhere, format!("the management API at {nowhere} does not answer")),
    ] {
        let end =
            Program::new(TRACE_TAIL).args(["--url", &url, "--enable", "--management-url", management]).run();
        let end = end.expect_code(1);
        assert!(end.stdout.is_empty(), "{end:?}");
        assert!(
            end.stderr.iter().any(|line| line.starts_with("error: ") && line.contains(&words)),
            "{end:?}"
        );
        assert!(!end.stderr.iter().any(|line| line.contains("p@ss")), "{end:?}");
    }
    // The password with its special characters is taken as it is meant.
    node().rabbitmqctl(&["set_user_tags", &user, "administrator"])?;
    let mut tail = trace_tail(&url, &["--enable", "--management-url", &management]);
    assert!(is_traced(node(), &vhost)?);
    tail.interrupt();
    tail.wait(LIMIT).expect_code(0);
    assert!(!is_traced(node(), &vhost)?);
    node().rabbitmqctl(&["delete_user", &user]).map(drop)
}

#[test]
fn wrong_usage_ends_with_2_before_anything_connects() {
    for args in [
        &["--management-url", "http://localhost:15672"][..],
        &["--enable", "--management-url", "https://localhost:15671"],
        &["--enable", "--management-url", "localhost"],
        &["--exchange"],
        &["--exchange", &"x".repeat(300)],
    ] {
        let end =
            Program::new(TRACE_TAIL).args(["--url", "amqp://127.0.0.1:1"]).args(args).run().expect_code(2);
        assert!(end.stdout.is_empty() && !end.stderr.is_empty(), "{args:?}: {end:?}");
    }
}

mod own_broker {
    use super::*;

    #[tokio::test]
    async fn a_broker_that_is_killed_and_restarted_is_tailed_again() -> Result<()> {
        let node = Node::start()?;
        let (enabled, plain) = (node.vhost()?, node.vhost()?);
        trace(&node, &plain, "trace_on")?;
        let management = node.management_url();
        let mut with_enable = trace_tail(&enabled.url(), &["--enable", "--management-url", &management]);
        let mut without = trace_tail(&plain.url(), &[]);
        for (vhost, tail) in [(&enabled, &mut with_enable), (&plain, &mut without)] {
            Client::open(&vhost.url()).await?.publish("", "nobody", b"before").await?;
            tail.wait_for_line(|line| line == "before");
        }
        node.write_out()?;
        node.kill()?;
        node.restart()?;

        // Tracing does not survive a restart: one tail turns it on again, the other says that it is off.
        with_enable.wait_for_error_line(|line| line.contains("connected (generation 2)"));
        with_enable.wait_for_error_line(|line| line.contains("tracing is on in the vhost"));
        without.wait_for_error_line(|line| line.contains("tracing is off in the vhost"));
        trace(&node, &plain, "trace_on")?;
        for (vhost, mut tail) in [(&enabled, with_enable), (&plain, without)] {
            Client::open(&vhost.url()).await?.publish("", "nobody", b"after").await?;
            assert_eq!(records_up_to(&mut tail, "after"), ["published '' before", "published '' after"]);
        }
        assert!(!is_traced(&node, &enabled)?);
        Ok(())
    }
}
