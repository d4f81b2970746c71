//! The programs `task` and `worker` against a real broker.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use broker::{Node, Vhost};
use harness::{End, Program, Running};
use serde_json::json;

const WAITING: &str = " [*] Waiting for messages. To exit press CTRL+C";

/// A task that no test waits for.
const LONG: &str = "a minute............................................................";

/// More than any end takes, with the 5 s that work in hand may have.
const SOON: Duration = Duration::from_secs(15);

/// `task`, which must succeed and say so.
fn send(vhost: &Vhost<'_>, options: &[&str], text: &str) {
    let end = Program::new(env!("CARGO_BIN_EXE_task")).args(["--url", &vhost.url()]).args(options).arg(text);
    assert_eq!(end.run().expect_code(0).stdout, [format!(" [x] Sent {text}")]);
}

/// A `worker` that is ready for tasks.
fn start_worker(vhost: &Vhost<'_>, options: &[&str]) -> Running {
    let worker = Program::new(env!("CARGO_BIN_EXE_worker")).args(["--url", &vhost.url()]).args(options);
    let mut worker = worker.start();
    worker.expect_line(WAITING);
    worker
}

fn received(text: &str) -> String {
    format!("Received a message: {text}")
}

/// Has the worker print that it got these tasks and did them, in this order and with nothing in between.
fn expect_done(worker: &mut Running, texts: &[&str]) {
    for text in texts {
        worker.expect_line(&received(text));
        worker.expect_line("Done");
    }
}

/// The same in any order: a quorum queue may put what comes back behind the others.
fn expect_done_in_any_order(worker: &mut Running, texts: &[&str]) {
    let mut done = BTreeSet::new();
    for _ in texts {
        done.insert(worker.wait_for_line(|line| line != "Done"));
        worker.expect_line("Done");
    }
    assert_eq!(done, texts.iter().map(|text| received(text)).collect());
}

fn stop(mut worker: Running) -> End {
    worker.interrupt();
    worker.wait(SOON).expect_code(0)
}

fn expect_redelivered(worker: &mut Running) {
    worker.wait_for_error_line(|line| line.contains("redelivered"));
}

/// Waits until the queue has this many messages to deliver and this many delivered, but not acknowledged.
fn wait_for_counts(vhost: &Vhost<'_>, ready: u64, unacknowledged: u64) -> anyhow::Result<()> {
    let since = Instant::now();
    loop {
        let queue = vhost.queue("task_queue")?.context("no task_queue")?;
        if queue["messages_ready"] == ready && queue["messages_unacknowledged"] == unacknowledged {
            return Ok(());
        }
        ensure!(
            since.elapsed() < Duration::from_secs(30),
            "expected {ready} and {unacknowledged}, got {queue:#}"
        );
    }
}

/// Puts a message into the queue `task_queue` as another program might.
fn publish(
    vhost: &Vhost<'_>,
    node: &Node,
    base64: &str,
    properties: serde_json::Value,
) -> anyhow::Result<()> {
    let answer = node.post(
        &format!("/api/exchanges/{}/amq.default/publish", vhost.name()),
        &json!({
            "routing_key": "task_queue",
            "payload": base64,
            "payload_encoding": "base64",
            "properties": properties,
        }),
    )?;
    ensure!(answer["routed"] == true, "{answer}");
    Ok(())
}

#[test]
fn tasks_that_were_sent_first_wait_for_a_worker() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    let task = || Program::new(env!("CARGO_BIN_EXE_task")).args(["--url", &vhost.url()]);
    assert_eq!(task().run().expect_code(0).stdout, [" [x] Sent hello"]);
    assert_eq!(task().arg("world").run().expect_code(0).stdout, [" [x] Sent world"]);

    let mut worker = start_worker(&vhost, &[]);
    expect_done(&mut worker, &["hello", "world"]);
    let end = stop(worker);
    assert_eq!(
        end.stdout,
        [WAITING, "Received a message: hello", "Done", "Received a message: world", "Done"]
    );
    assert_eq!(end.stderr, [""; 0]);
    Ok(())
}

#[test]
fn a_worker_that_was_started_first_waits_for_tasks_and_takes_a_second_for_each_dot() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    let mut worker = start_worker(&vhost, &[]);
    let words = ["A", "hard", "one.."];
    let mut task = Program::new(env!("CARGO_BIN_EXE_task")).args(["--url", &vhost.url()]).args(words).start();

    worker.expect_line("Received a message: A hard one..");
    let since = Instant::now();
    worker.expect_line("Done");
    // Some of the first second may have passed before this process saw the line.
    assert!(since.elapsed() > Duration::from_millis(1500), "{:?}", since.elapsed());
    assert_eq!(task.wait(SOON).expect_code(0).stdout, [" [x] Sent A hard one.."]);
    Ok(())
}

#[test]
fn tasks_are_persistent_and_the_queue_is_what_queue_type_says() -> anyhow::Result<()> {
    for (options, queue_type, durable) in [
        (&[][..], "quorum", true),
        (&["--queue-type", "quorum"], "quorum", true),
        (&["--queue-type", "classic"], "classic", true),
        (&["--queue-type", "transient"], "classic", false),
    ] {
        let vhost = broker::node().vhost()?;
        if !durable && transient_queues_are_refused(&vhost) {
            continue;
        }
        send(&vhost, options, "keep");

        let queue = vhost.queue("task_queue")?.expect("it was declared");
        assert_eq!(queue["durable"], durable, "{queue}");
        assert_eq!(queue["exclusive"], false, "{queue}");
        assert_eq!(queue["auto_delete"], false, "{queue}");
        assert_eq!(queue["arguments"], json!({"x-queue-type": queue_type}));

        let messages = broker::node().post(
            &format!("/api/queues/{}/task_queue/get", vhost.name()),
            &json!({"count": 1, "ackmode": "ack_requeue_true", "encoding": "auto"}),
        )?;
        let message = &messages[0];
        assert_eq!(message["payload"], "keep");
        assert_eq!(message["properties"]["delivery_mode"], 2, "{message}");
        assert_eq!(message["properties"]["content_type"], "text/plain", "{message}");
        let id = message["properties"]["message_id"].as_str();
        assert_eq!(id.map(str::len), Some(32), "{message}");

        // The worker declares the same: the broker would refuse anything else.
        expect_done(&mut start_worker(&vhost, options), &["keep"]);
    }
    Ok(())
}

/// As RabbitMQ 4.3 and later, and whatever is configured so, refuse them; both programs then say what to do.
fn transient_queues_are_refused(vhost: &Vhost<'_>) -> bool {
    let run = |program| {
        Program::new(program).args(["--url", &vhost.url(), "--prefix", "ann-", "--queue-type", "transient"])
    };
    let end = run(env!("CARGO_BIN_EXE_task")).run();
    if end.code == Some(0) {
        return false;
    }
    for end in [end, run(env!("CARGO_BIN_EXE_worker")).run()] {
        let error = end.expect_code(1).stderr.pop().expect("an explanation");
        assert!(error.contains("541 INTERNAL_ERROR - Feature `transient_nonexcl_queues`"), "{error}");
        assert!(error.contains("use --queue-type quorum or classic"), "{error}");
    }
    true
}

#[test]
fn with_prefetch_1_a_slow_task_holds_up_no_other_and_with_more_it_does() -> anyhow::Result<()> {
    const SLOW: &str = "slow.......";
    const FAST: [&str; 5] = ["fast 1", "fast 2", "fast 3", "fast 4", "fast 5"];
    let slow_and_fast = [&[SLOW], &FAST[..]].concat();
    for (prefetch, first_does, second_does) in
        [("1", &[SLOW][..], &FAST[..]), ("10", &slow_and_fast[..], &[][..])]
    {
        let vhost = broker::node().vhost()?;
        let options = ["--prefetch", prefetch];
        for text in &slow_and_fast {
            send(&vhost, &[], text);
        }
        let mut first = start_worker(&vhost, &options);
        first.expect_line(&received(SLOW));
        let mut second = start_worker(&vhost, &options);
        expect_done(&mut second, second_does);
        first.expect_line("Done");
        expect_done(&mut first, &first_does[1..]);

        let lines = |texts: &[&str]| {
            let done = texts.iter().flat_map(|text| [received(text), "Done".into()]);
            [WAITING.to_owned()].into_iter().chain(done).collect::<Vec<_>>()
        };
        assert_eq!(stop(first).stdout, lines(first_does), "prefetch {prefetch}");
        assert_eq!(stop(second).stdout, lines(second_does), "prefetch {prefetch}");
    }
    Ok(())
}

#[test]
fn the_tasks_of_a_killed_worker_go_to_another_and_none_is_lost() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    let tasks = ["in hand..........", "2", "3", "4", "5"];
    for text in tasks {
        send(&vhost, &[], text);
    }
    let mut killed = start_worker(&vhost, &["--prefetch", "3"]);
    killed.expect_line("Received a message: in hand..........");
    let mut other = start_worker(&vhost, &[]);
    killed.kill();

    expect_done_in_any_order(&mut other, &tasks);
    expect_redelivered(&mut other);
    assert_eq!(killed.wait(SOON).stdout, [WAITING, "Received a message: in hand.........."]);
    Ok(())
}

#[test]
fn auto_ack_takes_every_task_at_once_and_a_killed_worker_loses_them() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    for text in [LONG, "2", "3", "4", "5"] {
        send(&vhost, &[], text);
    }
    // The prefetch counts unacknowledged tasks, and there are none.
    let mut worker = start_worker(&vhost, &["--auto-ack", "--prefetch", "1"]);
    worker.expect_line(&received(LONG));
    wait_for_counts(&vhost, 0, 0)?;
    worker.kill();

    let mut other = start_worker(&vhost, &[]);
    send(&vhost, &[], "after them");
    expect_done(&mut other, &["after them"]);
    assert_eq!(stop(other).stderr, [""; 0]);
    Ok(())
}

#[test]
fn forgotten_acks_pile_up_and_finished_tasks_come_back() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    for text in ["1", "2", "3", "4"] {
        send(&vhost, &[], text);
    }
    // It gets no more than its prefetch, ever.
    let mut forgetful = start_worker(&vhost, &["--forget-ack", "--prefetch", "3"]);
    expect_done(&mut forgetful, &["1", "2", "3"]);
    wait_for_counts(&vhost, 1, 3)?;
    let mut other = start_worker(&vhost, &[]);
    expect_done(&mut other, &["4"]);
    wait_for_counts(&vhost, 0, 3)?;

    assert_eq!(stop(forgetful).stdout.len(), 1 + 3 * 2);
    expect_done_in_any_order(&mut other, &["1", "2", "3"]);
    (0..3).for_each(|_| expect_redelivered(&mut other));
    wait_for_counts(&vhost, 0, 0)?;
    Ok(())
}

#[test]
fn ctrl_c_lets_the_task_in_hand_finish_and_leaves_the_others() -> anyhow::Result<()> {
    for prefetch in ["1", "5"] {
        let vhost = broker::node().vhost()?;
        for text in ["in hand..", "left 1", "left 2"] {
            send(&vhost, &[], text);
        }
        let mut worker = start_worker(&vhost, &["--prefetch", prefetch]);
        worker.expect_line("Received a message: in hand..");
        let end = stop(worker);
        assert_eq!(end.stdout, [WAITING, "Received a message: in hand..", "Done"], "prefetch {prefetch}");
        assert!(!end.stderr.iter().any(|line| line.contains("WARN")), "{:#?}", end.stderr);

        expect_done_in_any_order(&mut start_worker(&vhost, &[]), &["left 1", "left 2"]);
    }
    Ok(())
}

#[test]
fn ctrl_c_with_auto_ack_does_what_nobody_else_can_do_any_more() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    for text in ["in hand....", "2", "3"] {
        send(&vhost, &[], text);
    }
    let mut worker = start_worker(&vhost, &["--auto-ack"]);
    worker.expect_line("Received a message: in hand....");
    wait_for_counts(&vhost, 0, 0)?;
    ensure!(!worker.stdout().contains(&"Done".to_owned()), "too late for Ctrl-C");
    worker.interrupt();
    worker.expect_line("Done");
    expect_done(&mut worker, &["2", "3"]);
    worker.wait(SOON).expect_code(0);
    Ok(())
}

#[test]
fn ctrl_c_gives_a_long_task_five_seconds_and_then_back_to_the_queue() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    send(&vhost, &[], LONG);
    let mut worker = start_worker(&vhost, &[]);
    worker.expect_line(&received(LONG));
    worker.interrupt();
    let since = Instant::now();
    let end = worker.wait(SOON).expect_code(0);
    assert!(since.elapsed() > Duration::from_secs(4), "it was given only {:?}", since.elapsed());
    assert_eq!(end.stdout, [WAITING, &received(LONG)]);
    let last = end.stderr.last().map(String::as_str).unwrap_or_default();
    assert!(last.contains("stopped with work in hand"), "{:#?}", end.stderr);

    let mut other = start_worker(&vhost, &[]);
    other.expect_line(&received(LONG));
    expect_redelivered(&mut other);
    Ok(())
}

#[test]
fn any_body_is_a_task() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    let mut worker = start_worker(&vhost, &[]);
    for (base64, text) in [("", ""), ("//4=", "\u{fffd}\u{fffd}"), ("YQ==", "a")] {
        publish(&vhost, broker::node(), base64, json!({}))?;
        expect_done(&mut worker, &[text]);
    }
    Ok(())
}

#[test]
fn a_task_whose_worker_is_cut_off_again_and_again_comes_back_each_time() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    send(&vhost, &[], LONG);
    let mut worker = start_worker(&vhost, &[]);
    worker.expect_line(&received(LONG));
    for _ in 0..3 {
        assert_eq!(vhost.close_connections()?, 1);
        worker.expect_line(&received(LONG));
        expect_redelivered(&mut worker);
    }
    assert_eq!(vhost.consumers()?.len(), 1);
    Ok(())
}

#[test]
fn a_worker_whose_queue_is_deleted_declares_it_again() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    let mut worker = start_worker(&vhost, &[]);
    broker::node().delete(&format!("/api/queues/{}/task_queue", vhost.name()))?;
    worker.wait_for_error_line(|line| line.contains("the broker cancelled the consumer"));
    // Until the old queue is quite gone, the broker takes declarations of it, and refuses its messages.
    let since = Instant::now();
    while vhost.queue("task_queue")?.is_none_or(|queue| queue["consumers"] != 1) {
        assert!(since.elapsed() < Duration::from_secs(30), "the worker does not consume again");
    }
    send(&vhost, &[], "afterwards");
    expect_done(&mut worker, &["afterwards"]);
    assert_eq!(vhost.consumers()?.len(), 1);
    Ok(())
}

#[test]
fn a_queue_that_exists_with_another_type_is_explained() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    send(&vhost, &["--queue-type", "classic"], "first");
    for program in [env!("CARGO_BIN_EXE_task"), env!("CARGO_BIN_EXE_worker")] {
        let end = Program::new(program).args(["--url", &vhost.url()]).run().expect_code(1);
        assert_eq!(end.stdout, [""; 0]);
        let error = &end.stderr[0];
        for words in ["Failed to declare a queue: 406", "inequivalent arg 'x-queue-type'", "--queue-type"] {
            assert!(error.contains(words), "{error}");
        }
    }
    Ok(())
}

#[test]
fn a_prefix_keeps_two_people_on_one_broker_apart() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?;
    let (mut ann, mut bob) =
        (start_worker(&vhost, &["--prefix", "ann-"]), start_worker(&vhost, &["--prefix", "bob-"]));
    // Ann's worker came first, and would get the first of one queue.
    send(&vhost, &["--prefix", "bob-"], "for Bob");
    send(&vhost, &["--prefix", "ann-"], "for Ann");
    expect_done(&mut ann, &["for Ann"]);
    expect_done(&mut bob, &["for Bob"]);
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2_and_connects_to_nothing() {
    let nobody = harness::silent_peer();
    let url = format!("amqp://127.0.0.1:{}", nobody.port());
    for (program, options, words) in [
        (env!("CARGO_BIN_EXE_worker"), &["--prefetch", "0"][..], "'--prefetch <N>'"),
        (env!("CARGO_BIN_EXE_worker"), &["--prefetch", "65536"], "'--prefetch <N>'"),
        (env!("CARGO_BIN_EXE_worker"), &["--auto-ack", "--forget-ack"], "cannot be used with"),
        (env!("CARGO_BIN_EXE_worker"), &["a task"], "unexpected argument"),
        (env!("CARGO_BIN_EXE_task"), &["--queue-type", "lazy"], "'--queue-type <QUEUE_TYPE>'"),
    ] {
        let end = Program::new(program).args(["--url", &url]).args(options).run().expect_code(2);
        assert_eq!(end.stdout, [""; 0], "{options:?}");
        assert!(end.stderr[0].contains(words), "{options:?}: {:#?}", end.stderr);
    }
}

mod own_broker {
    use super::*;

    #[test]
    fn a_killed_broker_keeps_persistent_tasks_and_gets_its_workers_back() -> anyhow::Result<()> {
        const CLASSIC: [&str; 2] = ["--queue-type", "classic"];
        const QUORUM: [&str; 2] = ["--prefix", "q-"];
        let node = Node::start()?;
        let vhost = node.vhost()?;
        let mut quorum = start_worker(&vhost, &QUORUM);
        let mut classic = start_worker(&vhost, &CLASSIC);
        node.write_out()?;

        let long = "in hand...............";
        for (worker, options) in [(&mut quorum, QUORUM), (&mut classic, CLASSIC)] {
            send(&vhost, &options, long);
            worker.expect_line(&received(long));
            send(&vhost, &options, "waiting");
        }
        // A durable queue alone does not keep a message: it has to be persistent as well.
        publish(&vhost, &node, "bm90IHBlcnNpc3RlbnQ=", json!({"delivery_mode": 1}))?;
        node.kill()?;
        node.restart()?;

        for (worker, options) in [(&mut quorum, QUORUM), (&mut classic, CLASSIC)] {
            send(&vhost, &options, "afterwards");
            expect_done_in_any_order(worker, &[long, "waiting", "afterwards"]);
        }
        assert_eq!(vhost.consumers()?.len(), 2);
        Ok(())
    }
}
