//! The two programs against a real broker: what they print, how they end, what they leave.

use std::time::{Duration, Instant};

use anyhow::Result;
use broker::Node;
use harness::{End, Program, Relay, Running, silent_peer};
use serde_json::json;
use shared::{Connection, ConnectionArgs, Error, Shutdown};

const WAITING: &str = " [*] Waiting for messages. To exit press CTRL+C";
const SENT: &str = " [x] Sent Hello World!";
const RECEIVED: &str = "Received a message: Hello World!";

/// Well over the shutdown deadline of 5 s.
const SOON: Duration = Duration::from_secs(15);

fn sender(url: &str) -> Program {
    Program::new(env!("CARGO_BIN_EXE_sender")).args(["--url", url])
}

fn receiver(url: &str) -> Program {
    Program::new(env!("CARGO_BIN_EXE_receiver")).args(["--url", url])
}

fn waiting_receiver(program: Program) -> Running {
    let mut receiver = program.start();
    receiver.expect_line(WAITING);
    receiver
}

/// Checks the exit code and that standard error is one line that holds the `words`; that line.
#[track_caller]
fn one_line(end: End, code: i32, words: &[&str]) -> String {
    let end = end.expect_code(code);
    let [line] = &end.stderr[..] else { panic!("more or less than one line: {end:#?}") };
    for word in words {
        assert!(line.contains(word), "'{word}' is not in: {line}");
    }
    line.clone()
}

#[test]
fn the_receiver_prints_what_the_sender_sent_whichever_starts_first() -> Result<()> {
    let vhost = broker::node().vhost()?;
    assert_eq!(sender(&vhost.url()).run().expect_code(0).stdout, [SENT]);

    let mut receiver = waiting_receiver(receiver(&vhost.url()));
    receiver.expect_line(RECEIVED);
    let end = sender(&vhost.url()).run().expect_code(0);
    assert_eq!((end.stdout, end.stderr), (vec![SENT.to_owned()], vec![]));
    receiver.expect_line(RECEIVED);

    receiver.interrupt();
    let end = receiver.wait(SOON).expect_code(0);
    assert_eq!(end.stdout, [WAITING, RECEIVED, RECEIVED]);
    assert!(end.stderr.is_empty(), "{:?}", end.stderr);
    Ok(())
}

#[test]
fn sigterm_ends_the_receiver_as_ctrl_c_does() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut receiver = waiting_receiver(receiver(&vhost.url()));
    receiver.terminate();
    receiver.wait(SOON).expect_code(0);
    Ok(())
}

#[test]
fn two_receivers_take_turns_and_a_prefix_keeps_others_out() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut first = waiting_receiver(receiver(&vhost.url()));
    let mut second = waiting_receiver(receiver(&vhost.url()));
    let mut apart = waiting_receiver(receiver(&vhost.url()).args(["--prefix", "ann-"]));
    // Two and two: three receivers of one queue would have two, one and one.
    for _ in 0..2 {
        sender(&vhost.url()).run().expect_code(0);
        sender(&vhost.url()).env("AMQP_PREFIX", "ann-").run().expect_code(0);
        apart.expect_line(RECEIVED);
    }
    first.expect_line(RECEIVED);
    second.expect_line(RECEIVED);
    let (one, two) = ([WAITING, RECEIVED], [WAITING, RECEIVED, RECEIVED]);
    for (mut receiver, printed) in [(first, &one[..]), (second, &one), (apart, &two)] {
        receiver.interrupt();
        assert_eq!(receiver.wait(SOON).expect_code(0).stdout, printed);
    }
    Ok(())
}

#[test]
fn the_queue_is_what_its_type_says() -> Result<()> {
    for (option, queue_type, durable) in
        [("quorum", "quorum", true), ("classic", "classic", true), ("transient", "classic", false)]
    {
        let vhost = broker::node().vhost()?;
        let end = sender(&vhost.url()).args(["--queue-type", option]).run();
        if option == "transient" && end.code == Some(1) {
            expect_refusal_of_transient_queues(&end);
            continue;
        }
        end.expect_code(0);
        let queue = vhost.queue("hello")?.expect("the sender declares the queue");
        assert_eq!(queue["arguments"], json!({ "x-queue-type": queue_type }), "{option}");
        let flags = [&queue["durable"], &queue["auto_delete"], &queue["exclusive"]];
        assert_eq!(flags, [&json!(durable), &json!(false), &json!(false)], "{option}");
    }
    Ok(())
}

/// As RabbitMQ 4.3 and later, and whatever is configured so, refuse them.
fn expect_refusal_of_transient_queues(end: &End) {
    let error = end.stderr.last().expect("an explanation");
    for words in [
        "error: Failed to declare a queue: 541 INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.",
        "; RabbitMQ 4.3 and later refuse transient queues: use --queue-type quorum or classic",
    ] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert_eq!(end.stdout, [""; 0]);
}

#[test]
fn the_message_is_plain_text_with_an_id_and_without_persistence() -> Result<()> {
    let vhost = broker::node().vhost()?;
    sender(&vhost.url()).run().expect_code(0);
    let get = json!({"count": 2, "ackmode": "ack_requeue_false", "encoding": "auto"});
    let messages = broker::node().post(&format!("/api/queues/{}/hello/get", vhost.name()), &get)?;
    let [message] = &messages.as_array().expect("a list")[..] else { panic!("not one message: {messages}") };
    assert_eq!(message["payload"], "Hello World!");
    assert_eq!((&message["exchange"], &message["routing_key"]), (&json!(""), &json!("hello")));
    let properties = &message["properties"];
    assert_eq!(properties["content_type"], "text/plain");
    assert_eq!(properties["message_id"].as_str().map(str::len), Some(32));
    assert_eq!(properties["delivery_mode"], json!(null));
    Ok(())
}

#[test]
fn bodies_that_are_not_text_are_printed_all_the_same() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut receiver = waiting_receiver(receiver(&vhost.url()));
    for (payload, line) in [("", "Received a message: "), ("/wA=", "Received a message: \u{fffd}\0")] {
        let message = json!({"properties": {}, "routing_key": "hello", "payload": payload, "payload_encoding": "base64"});
        broker::node().post(&format!("/api/exchanges/{}/amq.default/publish", vhost.name()), &message)?;
        receiver.expect_line(line);
    }
    Ok(())
}

#[tokio::test]
async fn a_message_without_a_queue_to_go_to_is_an_error() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "test", &shutdown).await?;
    let sent =
        connection.session(async |session| hello::send(&session.channel, "gone", "x", "id").await).await;
    let error = sent.unwrap_err();
    assert!(matches!(&error, Error::Returned { code: 312, .. }), "{error:?}");
    assert!(error.explain().contains("no queue 'gone' exists"), "{}", error.explain());
    Ok(())
}

#[test]
fn what_is_wrong_is_one_line_with_the_next_command_to_type() -> Result<()> {
    let vhost = broker::node().vhost()?;
    sender(&vhost.url()).run().expect_code(0);
    let url = vhost.url();
    for run in [sender, receiver] {
        let end = run(&url.replace(":guest@", ":wrong@")).run();
        let line = one_line(end, 1, &["error: ", "403", "rabbitmqctl change_password guest"]);
        assert!(!line.contains("wrong@"), "{line}");
        one_line(
            run(&url.replace(vhost.name(), "nowhere")).run(),
            1,
            &["530", "rabbitmqctl add_vhost nowhere"],
        );
        one_line(run(&url.replace("amqp:", "amqps:")).run(), 1, &["speaks no TLS", "openssl s_client"]);
        let classic = run(&url).args(["--queue-type", "classic"]).run();
        let command = format!("rabbitmqctl delete_queue -p {} hello", vhost.name());
        one_line(classic, 1, &["406", "inequivalent arg 'x-queue-type'", &command]);

        one_line(run("http://guest:secret@x").run(), 2, &["starts with 'http:'"]);
        one_line(run("amqp://guest:sec#ret@x").run(), 2, &["%23"]);
        one_line(run("amqps://x").args(["--ca-cert", "/no/such.pem"]).run(), 2, &["--ca-cert /no/such.pem"]);
        run(&url).args(["--reconnect-interval", "0s"]).run().expect_code(2);
        run(&url).args(["--wait", "5"]).run().expect_code(2);
        run(&url).arg("unexpected").run().expect_code(2);
    }
    Ok(())
}

#[test]
fn without_a_broker_the_hint_comes_first_and_the_count_last() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for run in [sender, receiver] {
        let end = run(&format!("amqp://{free}")).args(["--wait", "300ms"]).run().expect_code(1);
        assert!(end.stdout.is_empty());
        let [hint, error] = &end.stderr[..] else { panic!("{end:#?}") };
        assert!(hint.contains("cargo run -p broker") && hint.contains("trying for 300ms"), "{hint}");
        assert!(error.contains(&format!("gave up on {free} after ")) && error.contains("refused"), "{error}");
    }
}

#[test]
fn twenty_cuts_in_a_row_leave_one_consumer_and_no_more_threads() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let program =
        receiver(&vhost.url_through(relay.port())).args(["--queue-type", "classic"]).env("RUST_LOG", "debug");
    let mut receiver = waiting_receiver(program);
    let mut threads = 0;
    for generation in 2..=21 {
        relay.cut();
        receiver.wait_for_error_line(|line| line.contains(&format!("connected (generation {generation})")));
        if generation == 3 {
            // The first loss starts one thread of lapin's that stays.
            threads = receiver.threads();
        }
    }
    sender(&vhost.url()).args(["--queue-type", "classic"]).run().expect_code(0);
    receiver.expect_line(RECEIVED);
    // lapin's thread of a lost connection ends a moment after its socket.
    let start = Instant::now();
    while receiver.threads() > threads {
        assert!(start.elapsed() < SOON, "{} threads, {threads} after two cuts", receiver.threads());
        std::thread::sleep(Duration::from_millis(10));
    }
    vhost.wait_for_consumers(1)?;
    assert_eq!(relay.connections(), 1);
    receiver.interrupt();
    receiver.wait(SOON).expect_code(0);
    Ok(())
}

#[test]
fn used_up_attempts_end_the_receiver_with_address_cause_and_count() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let program = receiver(&vhost.url_through(relay.port())).args(["--reconnect-attempts", "5"]);
    let mut receiver = waiting_receiver(program);
    relay.refuse(true);
    relay.cut();
    let end = receiver.wait(SOON).expect_code(1);
    let last = end.stderr.last().expect("an error line");
    assert!(
        last.contains(&format!("gave up on 127.0.0.1:{} after 5 failed attempts", relay.port())),
        "{last}"
    );
    assert!(last.contains("connection refused"), "{last}");
    Ok(())
}

#[test]
fn a_peer_that_says_nothing_is_reported_and_ctrl_c_works_meanwhile() {
    for run in [sender, receiver] {
        let peer = silent_peer();
        let url = format!("amqp://127.0.0.1:{}?connection_timeout=300", peer.port());
        let end = run(&url).args(["--wait", "1s"]).run().expect_code(1);
        assert!(end.stderr.last().is_some_and(|line| line.contains("no answer")), "{end:#?}");
        assert!(end.elapsed < SOON);

        let mut waiting = run(&url).args(["--wait", "1h"]).start();
        waiting.wait_for_error_line(|line| line.contains("no answer") && line.contains("trying for 1h"));
        waiting.interrupt();
        waiting.wait(SOON).expect_code(0);
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_receiver_quietly() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let pipeline = format!(
        "'{}' --url '{}' | head -n 1; exec '{}' --url '{}'",
        env!("CARGO_BIN_EXE_receiver"),
        vhost.url(),
        env!("CARGO_BIN_EXE_sender"),
        vhost.url()
    );
    // The pipeline ends only when the receiver does, which notices at its first line without a reader.
    let mut shell = Program::new("sh").args(["-c", &pipeline]).start();
    shell.expect_line(WAITING);
    let start = Instant::now();
    let end = loop {
        sender(&vhost.url()).run().expect_code(0);
        match shell.try_wait(Duration::from_millis(100)) {
            Ok(end) => break end.expect_code(0),
            Err(still_runs) => assert!(start.elapsed() < SOON, "{still_runs}"),
        }
    };
    assert!(end.stderr.is_empty(), "{:?}", end.stderr);
    Ok(())
}

#[test]
fn a_reader_that_stops_reading_does_not_keep_the_receiver_from_stopping() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut receiver = std::process::Command::new(env!("CARGO_BIN_EXE_receiver"))
        .args(["--url", &vhost.url()])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let start = Instant::now();
    while vhost.consumers()?.is_empty() {
        assert!(start.elapsed() < SOON, "the receiver does not consume");
    }
    // More than a pipe holds.
    let message = json!({"properties": {}, "routing_key": "hello", "payload": "x".repeat(200_000), "payload_encoding": "string"});
    broker::node().post(&format!("/api/exchanges/{}/amq.default/publish", vhost.name()), &message)?;
    let start = Instant::now();
    while vhost.queue("hello")?.is_some_and(|queue| queue["messages"] != 0) {
        assert!(start.elapsed() < SOON, "the receiver does not take the message");
    }
    let interrupted = Program::new("kill").args(["-INT", &receiver.id().to_string()]).run();
    interrupted.expect_code(0);
    let start = Instant::now();
    while receiver.try_wait()?.is_none() {
        if start.elapsed() > SOON {
            receiver.kill()?;
            panic!("the receiver does not stop");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(receiver.wait()?.code(), Some(0));
    Ok(())
}

#[test]
fn a_full_disk_behind_standard_output_is_an_error() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let line = format!("'{}' --url '{}' > /dev/full", env!("CARGO_BIN_EXE_sender"), vhost.url());
    one_line(Program::new("sh").args(["-c", &line]).run(), 1, &["cannot write to standard output"]);
    Ok(())
}

mod own_broker {
    use super::*;

    /// On a node of its own: an alarm, a stopped broker, and a killed one.
    #[test]
    fn the_programs_live_through_a_broker_in_trouble() -> Result<()> {
        let node = Node::start()?;
        let classic = ["--queue-type", "classic"];
        let url = format!("{}?heartbeat=2", node.url());
        let mut receiver = waiting_receiver(receiver(&url).args(classic));

        // A memory alarm: the sender says so, gives up in time, and stops when it is told to.
        node.memory_alarm(true)?;
        let end = sender(&url).args(classic).args(["--prefix", "blocked-"]).run().expect_code(1);
        assert!(end.stdout.is_empty(), "{end:#?}");
        assert!(end.stderr.iter().any(|line| line.contains("blocks publishing: low on memory")), "{end:#?}");
        assert!(
            end.stderr.last().is_some_and(|line| line.contains("rabbitmq-diagnostics alarms")),
            "{end:#?}"
        );
        let blocked = || {
            let mut sender = sender(&url).args(classic).args(["--prefix", "blocked-"]).start();
            sender.wait_for_error_line(|line| line.contains("blocks publishing"));
            sender.interrupt();
            sender
        };
        let mut patient = blocked();
        let mut impatient = blocked();
        impatient.wait_for_error_line(|line| line.contains("a second Ctrl-C stops at once"));
        impatient.interrupt();
        impatient.wait(SOON).expect_code(130);
        let end = patient.wait(SOON).expect_code(0);
        assert!(
            end.stderr.last().is_some_and(|line| line.contains("may or may not have arrived")),
            "{end:#?}"
        );
        node.memory_alarm(false)?;

        // A broker that is stopped and says nothing more: the receiver notices, and both can be ended.
        node.pause()?;
        receiver.wait_for_error_line(|line| line.contains("connection lost"));
        let mut stuck = sender(&url).args(classic).start();
        stuck.wait_for_error_line(|line| line.contains("no answer"));
        stuck.interrupt();
        stuck.wait(SOON).expect_code(0);
        node.resume()?;
        receiver.wait_for_error_line(|line| line.contains("connected (generation 2)"));

        // A killed broker: the sender waits for it, the receiver declares again and receives.
        node.kill()?;
        receiver.wait_for_error_line(|line| line.contains("connection lost"));
        let mut early = sender(&url).args(classic).args(["--wait", "60s"]).start();
        early.wait_for_error_line(|line| line.contains("connection refused"));
        node.restart()?;
        early.expect_line(SENT);
        early.wait(SOON).expect_code(0);
        receiver.expect_line(RECEIVED);

        node.kill()?;
        receiver.wait_for_error_line(|line| line.contains("connection lost"));
        receiver.interrupt();
        receiver.wait(SOON).expect_code(0);
        Ok(())
    }
}
