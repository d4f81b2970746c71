//! The programs `striker` and `keeper` against a real broker.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use broker::Vhost;
use harness::{End, Program, Running};
use serde_json::{Value, json};

/// More than any end without work in hand takes.
const SOON: Duration = Duration::from_secs(15);

/// No step of a test may take longer.
const LIMIT: Duration = Duration::from_secs(30);

const CONFIRMED_3: &str = " [.] striker: 3 sent: 3 confirmed, 0 returned, 0 nacked, 0 not sent, 0 unknown, \
    0 unconfirmed; 0 re-sent; 0 reconnects, longest outage 0s";

fn striker(vhost: &Vhost<'_>, options: &[&str]) -> Program {
    Program::new(env!("CARGO_BIN_EXE_striker")).args(["--url", &vhost.url()]).args(options)
}

/// A `keeper` that consumes.
fn start_keeper(vhost: &Vhost<'_>, options: &[&str]) -> Running {
    let keeper = Program::new(env!("CARGO_BIN_EXE_keeper")).args(["--url", &vhost.url()]).args(options);
    let mut keeper = keeper.start();
    keeper.wait_for_error_line(|line| line.ends_with("consuming"));
    keeper
}

fn stop(mut program: Running) -> End {
    program.terminate();
    program.wait(SOON).expect_code(0)
}

fn report(end: &End) -> Result<Value> {
    ensure!(end.stdout.len() == 1, "{:?} is not one line", end.stdout);
    Ok(serde_json::from_str(&end.stdout[0])?)
}

fn messages(vhost: &Vhost<'_>) -> Result<Option<Value>> {
    Ok(vhost.queue("casillas")?.map(|queue| queue["messages"].clone()))
}

/// Asks again until `holds` is true.
fn eventually(what: &str, holds: impl Fn() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !holds()? {
        ensure!(since.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn what_the_striker_shoots_the_keeper_catches_and_both_tallies_agree() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut keeper = start_keeper(&vhost, &[]);
    keeper.expect_line("running keeper ...");
    let end = striker(&vhost, &["--count", "3", "--rate", "0"]).run().expect_code(0);
    let expected = [
        "running striker ...",
        " [x] morientes 1 (confirmed)",
        " [x] morientes 2 (confirmed)",
        " [x] morientes 3 (confirmed)",
        CONFIRMED_3,
    ];
    assert_eq!(end.stdout, expected);
    assert_eq!(end.stderr, [""; 0]);
    for number in 1..=3 {
        keeper.expect_line(&format!("[1] casillas consumed: morientes {number}"));
    }
    let tally = " [.] keeper: 3 received, 3 acked, 0 redelivered; 3 distinct, 0 duplicates, 0 missing; \
        0 reconnects, longest outage 0s";
    assert_eq!(stop(keeper).stdout.last().map(String::as_str), Some(tally));
    eventually("an empty queue", || Ok(messages(&vhost)? == Some(json!(0))))
}

#[test]
fn a_message_is_persistent_text_with_an_id_of_run_and_number() -> Result<()> {
    let vhost = broker::node().vhost()?;
    stop(start_keeper(&vhost, &[]));
    striker(&vhost, &["--count", "2", "--rate", "0", "--size", "20"]).run().expect_code(0);
    let question = json!({"count": 2, "ackmode": "ack_requeue_false", "encoding": "auto"});
    let answer = broker::node().post(&format!("/api/queues/{}/casillas/get", vhost.name()), &question)?;
    let mut runs = BTreeSet::new();
    for (message, number) in answer.as_array().into_iter().flatten().zip(1..) {
        let properties = &message["properties"];
        assert_eq!(properties["delivery_mode"], 2);
        assert_eq!(properties["content_type"], "text/plain");
        assert_eq!(properties["content_encoding"], "utf-8");
        assert_eq!(message["payload"], format!("morientes {number}........."));
        assert_eq!((&message["exchange"], &message["routing_key"]), (&json!("penalty"), &json!("spain")));
        let id = properties["message_id"].as_str().unwrap_or_default();
        let (run, last) = id.rsplit_once('.').unwrap_or_default();
        assert_eq!(last, number.to_string(), "{id}");
        runs.insert(run.to_owned());
    }
    assert_eq!(answer.as_array().map(Vec::len), Some(2));
    assert_eq!(runs.len(), 1, "{runs:?}");
    Ok(())
}

#[test]
fn without_a_keeper_the_striker_says_so_and_fails() -> Result<()> {
    let vhost = broker::node().vhost()?;
    for way in ["confirmed", "new-channel"] {
        let end = striker(&vhost, &["--count", "2", "--rate", "0", "--publish", way]).run().expect_code(1);
        assert_eq!(end.stdout[1], " [x] morientes 1 (returned: 312 NO_ROUTE)");
        assert!(end.stdout[3].contains("2 sent: 0 confirmed, 2 returned"), "{:?}", end.stdout);
        assert_eq!(end.stderr, ["error: 2 of 2 messages were not confirmed; start keeper first"]);
    }
    // Nobody asked for an answer, so nobody knows.
    let end = striker(&vhost, &["--count", "2", "--rate", "0", "--publish", "reserved"]).run().expect_code(0);
    assert_eq!(end.stdout[1], " [x] morientes 1 (written)");
    assert!(end.stdout[3].contains("2 sent: 0 confirmed"), "{:?}", end.stdout);
    assert!(end.stdout[3].contains("2 unconfirmed"), "{:?}", end.stdout);
    Ok(())
}

#[test]
fn each_way_to_publish_brings_every_message_and_json_is_one_object() -> Result<()> {
    let vhost = broker::node().vhost()?;
    // A quorum queue may lose messages without confirms when their channel is closed soon after them.
    let queue = ["--queue-type", "classic"];
    let options = ["--report", "json", "--workers", "3", "--prefetch", "50", "--count", "1000"];
    let options = [&options[..], &queue].concat();
    let mut keeper = start_keeper(&vhost, &options);
    for (way, more) in [
        ("new-channel", &[][..]),
        ("reserved", &["--in-flight", "70"]),
        ("confirmed", &[]),
        ("confirmed", &["--in-flight", "70"]),
    ] {
        let options = ["--count", "250", "--rate", "0", "--publish", way, "--report", "json"];
        let end = striker(&vhost, &[&options[..], more].concat()).run().expect_code(0);
        let report = report(&end)?;
        let arrived = if way == "reserved" { &report["unconfirmed"] } else { &report["confirmed"] };
        assert_eq!((&report["sent"], arrived), (&json!(250), &json!(250)), "{report}");
    }
    let report = report(&keeper.wait(LIMIT).expect_code(0))?;
    for (count, expected) in
        [("received", 1000), ("acked", 1000), ("distinct", 1000), ("duplicates", 0), ("missing", 0)]
    {
        assert_eq!(report[count], expected, "{count}: {report}");
    }
    Ok(())
}

#[test]
fn the_keepers_workers_are_consumers_with_their_own_prefetch() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let options = ["--workers", "3", "--prefetch", "2", "--queue-type", "classic", "--lazy", "--work", "1h"];
    let mut keeper = start_keeper(&vhost, &options);
    eventually("three consumers", || Ok(vhost.consumers()?.len() == 3))?;
    let consumers = vhost.consumers()?;
    let tags: BTreeSet<_> =
        consumers.iter().filter_map(|consumer| consumer["consumer_tag"].as_str()).collect();
    assert_eq!(tags, BTreeSet::from(["casillas (1/3)", "casillas (2/3)", "casillas (3/3)"]));
    assert!(consumers.iter().all(|consumer| consumer["prefetch_count"] == 2));
    let connections = vhost.connections()?;
    assert_eq!(connections[0]["user_provided_name"], "keeper");
    assert_eq!(connections[0]["channels"], 1);
    let arguments = vhost.queue("casillas")?.map(|queue| queue["arguments"].clone());
    assert_eq!(arguments, Some(json!({"x-queue-type": "classic", "x-queue-mode": "lazy"})));
    striker(&vhost, &["--count", "10", "--rate", "0"]).run().expect_code(0);
    eventually("six messages held", || {
        Ok(vhost.queue("casillas")?.is_some_and(|queue| queue["messages_unacknowledged"] == 6))
    })?;

    // Work that outlasts the time to stop goes back.
    keeper.terminate();
    let end = keeper.wait(2 * shared::SHUTDOWN_DEADLINE);
    // Whether the broker heeds it cannot be seen from outside, so it is said on every version.
    let warning = "x-queue-mode=lazy: RabbitMQ 3.12 and later accept it without any effect";
    assert!(end.stderr.iter().any(|line| line.contains(warning)), "{end}");
    eventually("all ten in the queue", || {
        Ok(vhost.queue("casillas")?.is_some_and(|queue| queue["messages_ready"] == 10))
    })
}

#[test]
fn the_keeper_stops_by_itself_after_as_many_messages_as_it_was_told() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut keeper = start_keeper(&vhost, &["--count", "5", "--prefetch", "1", "--quiet"]);
    striker(&vhost, &["--count", "9", "--rate", "0"]).run().expect_code(0);
    let end = keeper.wait(LIMIT).expect_code(0);
    assert_eq!(end.stdout.len(), 2, "{:?}", end.stdout);
    assert!(end.stdout[1].starts_with(" [.] keeper: "), "{:?}", end.stdout);
    eventually("3 or 4 left of 9 after 5, and one that was on its way", || {
        Ok(matches!(messages(&vhost)?.and_then(|left| left.as_u64()), Some(3..=4)))
    })
}

#[test]
fn the_striker_keeps_its_pace_and_ends_on_a_signal() -> Result<()> {
    let vhost = broker::node().vhost()?;
    stop(start_keeper(&vhost, &[]));
    let since = Instant::now();
    striker(&vhost, &["--count", "21", "--rate", "40"]).run().expect_code(0);
    assert!(since.elapsed() >= Duration::from_millis(500), "{:?} for 20 pauses of 25 ms", since.elapsed());

    let mut endless = striker(&vhost, &["--rate", "100"]).start();
    endless.wait_for_line(|line| line == " [x] morientes 30 (confirmed)");
    let end = stop(endless);
    let last = end.stdout.last().cloned().unwrap_or_default();
    assert!(last.starts_with(" [.] striker: ") && last.contains("0 unknown"), "{last}");
    Ok(())
}

#[test]
fn the_comparison_prints_ratios_and_leaves_nothing_behind() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let end = striker(&vhost, &["--compare", "--count", "50", "--in-flight", "10"]).run().expect_code(0);
    let starts = ["new-channel", "confirmed", "confirmed, 10 in flight", "reserved"];
    assert_eq!(end.stdout.len(), starts.len(), "{:?}", end.stdout);
    for (line, start) in end.stdout.iter().zip(starts) {
        let rest = line.strip_prefix(&format!(" [.] {start}: ")).unwrap_or_default();
        let (pace, ratio) = rest.split_once(" messages per second, ").unwrap_or_default();
        let ratio = ratio.strip_suffix(" × new-channel").unwrap_or_default();
        assert!(pace.parse::<u32>().is_ok_and(|pace| pace > 0), "{line}");
        assert!(ratio.parse::<f64>().is_ok_and(|ratio| ratio > 0.0), "{line}");
    }
    assert_eq!(vhost.queues()?, [] as [Value; 0]);
    Ok(())
}

#[test]
fn another_declaration_of_the_queue_ends_the_keeper_with_the_arguments_name() -> Result<()> {
    let vhost = broker::node().vhost()?;
    stop(start_keeper(&vhost, &["--queue-type", "quorum"]));
    let keeper = Program::new(env!("CARGO_BIN_EXE_keeper")).args(["--url", &vhost.url()]);
    let end = keeper.args(["--queue-type", "classic"]).run().expect_code(1);
    let line = end.stderr.last().cloned().unwrap_or_default();
    assert!(line.starts_with("error: Failed to declare a queue: 406 "), "{line}");
    assert!(line.contains("x-queue-type") && line.contains("another"), "{line}");
    Ok(())
}

#[test]
fn a_quorum_queue_is_never_lazy_and_the_keeper_says_what_to_leave_away() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let keeper = Program::new(env!("CARGO_BIN_EXE_keeper")).args(["--url", &vhost.url(), "--lazy"]);
    let end = keeper.run().expect_code(1);
    let line = end.stderr.last().cloned().unwrap_or_default();
    assert!(line.contains("406 PRECONDITION_FAILED - invalid arg 'x-queue-mode'"), "{line}");
    assert!(line.ends_with("only classic queues have that mode, and since RabbitMQ 3.12 without any effect: leave --lazy away"), "{line}");
    Ok(())
}

/// 16 MiB are the limit since RabbitMQ 4.0, 128 MiB were it before.
#[test]
fn messages_of_17_mib_pass_before_4_0_and_are_explained_afterwards() -> Result<()> {
    let vhost = broker::node().vhost()?;
    stop(start_keeper(&vhost, &["--queue-type", "classic"]));
    let size = (17 << 20).to_string();
    let end = striker(&vhost, &["--size", &size, "--count", "2", "--rate", "0", "--quiet"]).run();
    if !broker::node().is_from(4, 0)? {
        let end = end.expect_code(0);
        assert!(end.stdout.last().is_some_and(|tally| tally.contains("2 sent: 2 confirmed")), "{end}");
        assert_eq!(messages(&vhost)?, Some(json!(2)));
        return Ok(());
    }
    let end = end.expect_code(1);
    let line = end.stderr.last().cloned().unwrap_or_default();
    assert!(line.contains("406 PRECONDITION_FAILED - message size 17825792 is larger than"), "{line}");
    assert!(line.ends_with("send less in each, or set max_message_size in rabbitmq.conf"), "{line}");
    assert_eq!(messages(&vhost)?, Some(json!(0)));
    Ok(())
}

#[test]
fn wrong_options_are_named_before_anything_connects() {
    for (program, options, words) in [
        (env!("CARGO_BIN_EXE_keeper"), &["--workers", "0"][..], "0 is not in 1..=65535"),
        (env!("CARGO_BIN_EXE_keeper"), &["--prefetch", "0"], "0 is not in 1..=65535"),
        (env!("CARGO_BIN_EXE_striker"), &["--in-flight", "0"], "--in-flight"),
        (env!("CARGO_BIN_EXE_striker"), &["--size", "18446744073709551615"], "--size"),
        (env!("CARGO_BIN_EXE_keeper"), &["--count", "0"], "--count"),
        (env!("CARGO_BIN_EXE_striker"), &["--rate", "fast"], "--rate"),
        (
            env!("CARGO_BIN_EXE_striker"),
            &["--publish", "new-channel", "--in-flight", "2"],
            "leave --in-flight away",
        ),
        (env!("CARGO_BIN_EXE_striker"), &["--compare", "--rate", "5"], "--compare"),
        (env!("CARGO_BIN_EXE_striker"), &["--reconnect-interval", "0s"], "above 0"),
        (env!("CARGO_BIN_EXE_striker"), &["--ca-cert", "no.pem"], "--ca-cert no.pem: No such file"),
    ] {
        let end =
            Program::new(program).args(["--url", "amqp://127.0.0.1:1"]).args(options).run().expect_code(2);
        let said = end.stderr.join("\n");
        assert!(said.contains(words), "{options:?}: {said}");
        assert_eq!(end.stdout, [""; 0]);
    }
}

#[test]
fn progress_is_shown_on_a_terminal_only() -> Result<()> {
    let vhost = broker::node().vhost()?;
    stop(start_keeper(&vhost, &[]));
    let options = ["--count", "30", "--rate", "25", "--quiet"];
    let terminal = nix::pty::openpty(None, None)?;
    let url = vhost.url();
    let mut shown = Command::new(env!("CARGO_BIN_EXE_striker"));
    shown
        .args(["--url", &url])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(terminal.slave);
    let mut child = shown.spawn()?;
    drop(shown);
    let mut text = Vec::new();
    // The terminal's other end reports an error once the program has gone.
    let _ = File::from(terminal.master).read_to_end(&mut text);
    assert!(child.wait()?.success());
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("\r\x1b[Kstriker: ") && text.contains(" messages, "), "{text:?}");
    assert!(text.ends_with("\r\x1b[K"), "{text:?}");

    let end = striker(&vhost, &options).run().expect_code(0);
    assert_eq!(end.stderr, [""; 0]);
    Ok(())
}
