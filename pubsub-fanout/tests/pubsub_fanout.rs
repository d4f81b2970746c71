//! The programs `emit_log` and `receive_logs` against a real broker.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use broker::{Node, Vhost};
use harness::{End, Program, Running};
use serde_json::json;

const WAITING: &str = " [*] Waiting for logs. To exit press CTRL+C";

/// More than the end of a program takes.
const SOON: Duration = Duration::from_secs(15);

fn emit_log(vhost: &Vhost<'_>, args: &[&str]) -> End {
    Program::new(env!("CARGO_BIN_EXE_emit_log")).args(["--url", &vhost.url()]).args(args).run()
}

/// `emit_log`, which must succeed and say so.
fn emit(vhost: &Vhost<'_>, text: &str) {
    assert_eq!(emit_log(vhost, &[text]).expect_code(0).stdout, [format!(" [x] Sent {text}")]);
}

/// A `receive_logs` that is ready for lines, and that tells of each queue that it makes.
fn start_receiver(vhost: &Vhost<'_>, options: &[&str]) -> Running {
    let receiver = Program::new(env!("CARGO_BIN_EXE_receive_logs"))
        .args(["--url", &vhost.url()])
        .args(options)
        .env("RUST_LOG", "info,lapin=off,receive_logs=debug");
    let mut receiver = receiver.start();
    receiver.expect_line(WAITING);
    receiver
}

/// Waits until the receiver consumes from another queue, and returns the queue's name.
fn new_queue(receiver: &mut Running) -> String {
    let line = receiver.wait_for_error_line(|line| line.contains("consuming from the queue"));
    line.split_whitespace().find(|word| word.starts_with("amq.gen-")).expect("a name in the line").to_owned()
}

fn stop(mut receiver: Running) -> End {
    receiver.interrupt();
    receiver.wait(SOON).expect_code(0)
}

/// Waits until these are all queues and each is bound once. The broker deletes those of a lost connection
/// soon after it, but not at once.
fn wait_for_queues(vhost: &Vhost<'_>, expected: &[&str]) -> Result<()> {
    let mut expected = expected.to_vec();
    expected.sort_unstable();
    let since = Instant::now();
    loop {
        let (queues, bindings) = (vhost.queues()?, vhost.bindings()?);
        let mut names: Vec<_> = queues.iter().filter_map(|queue| queue["name"].as_str()).collect();
        let to_logs = bindings.iter().filter(|binding| binding["source"] == "logs");
        let mut bound: Vec<_> = to_logs.filter_map(|binding| binding["destination"].as_str()).collect();
        names.sort_unstable();
        bound.sort_unstable();
        if names == expected && bound == expected {
            return Ok(());
        }
        ensure!(
            since.elapsed() < Duration::from_secs(15),
            "expected {expected:?}, got the queues {names:?} and bindings of {bound:?}"
        );
    }
}

#[test]
fn two_receivers_both_get_every_line() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let receivers = [start_receiver(&vhost, &[]), start_receiver(&vhost, &[])];
    assert_eq!(emit_log(&vhost, &[]).expect_code(0).stdout, [" [x] Sent hello"]);
    assert_eq!(emit_log(&vhost, &["info:", "all", "is", "well"]).stdout, [" [x] Sent info: all is well"]);

    for mut receiver in receivers {
        receiver.expect_line(" [x] hello");
        receiver.expect_line(" [x] info: all is well");
        assert_eq!(stop(receiver).stdout, [WAITING, " [x] hello", " [x] info: all is well"]);
    }
    Ok(())
}

#[test]
fn a_line_that_nobody_waits_for_is_gone_and_a_late_receiver_sees_only_what_comes_after() -> Result<()> {
    let vhost = broker::node().vhost()?;
    // The exchange exists then, but nobody has bound a queue to it.
    emit(&vhost, "to nobody");
    let mut early = start_receiver(&vhost, &[]);
    emit(&vhost, "to one");
    early.expect_line(" [x] to one");
    let mut late = start_receiver(&vhost, &[]);
    emit(&vhost, "to both");

    late.expect_line(" [x] to both");
    early.expect_line(" [x] to both");
    assert_eq!(stop(late).stdout, [WAITING, " [x] to both"]);
    assert_eq!(stop(early).stdout, [WAITING, " [x] to one", " [x] to both"]);
    Ok(())
}

#[test]
fn mandatory_reports_a_line_without_a_receiver() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let end = emit_log(&vhost, &["--mandatory", "anybody", "there?"]).expect_code(1);
    assert_eq!(end.stdout, [""; 0]);
    assert_eq!(end.stderr.len(), 1, "{:#?}", end.stderr);
    for words in ["312 NO_ROUTE", "exchange 'logs'", "no queue is bound", "rabbitmqctl list_bindings"] {
        assert!(end.stderr[0].contains(words), "{:?}", end.stderr[0]);
    }

    let mut receiver = start_receiver(&vhost, &[]);
    let end = emit_log(&vhost, &["--mandatory", "anybody", "there?"]).expect_code(0);
    assert_eq!(end.stdout, [" [x] Sent anybody there?"]);
    receiver.expect_line(" [x] anybody there?");
    Ok(())
}

#[test]
fn the_exchange_is_durable_and_a_receivers_queue_lives_and_dies_with_it() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut receiver = start_receiver(&vhost, &[]);
    let name = new_queue(&mut receiver);
    let queue = vhost.queue(&name)?.expect("its receiver is connected");
    assert_eq!(queue["exclusive"], true, "{queue}");
    assert_eq!(queue["durable"], false, "{queue}");
    assert_eq!(queue["auto_delete"], false, "{queue}");
    let exchange = broker::node().get(&format!("/api/exchanges/{}/logs", vhost.name()))?;
    for (flag, value) in [
        ("type", json!("fanout")),
        ("durable", json!(true)),
        ("auto_delete", json!(false)),
        ("internal", json!(false)),
    ] {
        assert_eq!(exchange[flag], value, "{exchange}");
    }

    stop(receiver);
    wait_for_queues(&vhost, &[])
}

#[test]
fn a_line_is_text_and_not_persistent_and_the_routing_key_does_not_matter() -> Result<()> {
    let vhost = broker::node().vhost()?;
    emit(&vhost, "declares the exchange");
    let (node, name) = (broker::node(), vhost.name());
    node.put(&format!("/api/queues/{name}/ours"), &json!({"durable": true}))?;
    node.post(&format!("/api/bindings/{name}/e/logs/q/ours"), &json!({"routing_key": "any"}))?;
    let mut receiver = start_receiver(&vhost, &[]);
    let other = json!({
        "routing_key": "other",
        "payload": "//4=",
        "payload_encoding": "base64",
        "properties": {},
    });
    node.post(&format!("/api/exchanges/{name}/logs/publish"), &other)?;
    emit(&vhost, "the line");

    // Whatever the bytes, the receiver goes on.
    receiver.expect_line(" [x] \u{fffd}\u{fffd}");
    receiver.expect_line(" [x] the line");
    let take = json!({"count": 2, "ackmode": "ack_requeue_false", "encoding": "auto"});
    let messages = node.post(&format!("/api/queues/{name}/ours/get"), &take)?;
    assert_eq!(messages[0]["routing_key"], "other");
    assert_eq!(messages[1]["routing_key"], "");
    assert_eq!(messages[1]["payload"], "the line");
    let properties = &messages[1]["properties"];
    assert_eq!(properties["content_type"], "text/plain", "{properties}");
    assert_eq!(properties["message_id"].as_str().map(str::len), Some(32), "{properties}");
    assert_eq!(properties["delivery_mode"], json!(null), "{properties}");
    Ok(())
}

#[test]
fn three_forced_closes_in_a_row_leave_one_queue_and_one_binding_for_each_receiver() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut receivers = [start_receiver(&vhost, &[]), start_receiver(&vhost, &[])];
    let mut names = receivers.each_mut().map(new_queue);
    for _ in 0..3 {
        assert_eq!(vhost.close_connections()?, 2);
        let before = names;
        names = receivers.each_mut().map(new_queue);
        assert!(names.iter().all(|name| !before.contains(name)), "{names:?} after {before:?}");
        wait_for_queues(&vhost, &[&names[0], &names[1]])?;
    }
    emit(&vhost, "afterwards");
    emit(&vhost, "the end");
    for mut receiver in receivers {
        receiver.expect_line(" [x] afterwards");
        receiver.expect_line(" [x] the end");
    }
    Ok(())
}

#[test]
fn a_receiver_whose_queue_is_deleted_makes_another() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut receiver = start_receiver(&vhost, &[]);
    let name = new_queue(&mut receiver);
    vhost.delete_queue(&name)?;
    let name = new_queue(&mut receiver);
    wait_for_queues(&vhost, &[&name])?;
    emit(&vhost, "afterwards");
    receiver.expect_line(" [x] afterwards");
    Ok(())
}

#[test]
fn an_exchange_that_exists_as_another_type_is_explained() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let direct = json!({"type": "direct", "durable": true});
    broker::node().put(&format!("/api/exchanges/{}/logs", vhost.name()), &direct)?;
    for program in [env!("CARGO_BIN_EXE_emit_log"), env!("CARGO_BIN_EXE_receive_logs")] {
        let end = Program::new(program).args(["--url", &vhost.url()]).run().expect_code(1);
        assert_eq!(end.stdout, [""; 0]);
        for words in ["Failed to declare an exchange: 406", "inequivalent arg 'type'", "--prefix"] {
            assert!(end.stderr[0].contains(words), "{:#?}", end.stderr);
        }
    }
    Ok(())
}

#[test]
fn a_prefix_keeps_two_people_on_one_broker_apart() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let (mut ann, mut bob) =
        (start_receiver(&vhost, &["--prefix", "ann-"]), start_receiver(&vhost, &["--prefix", "bob-"]));
    emit_log(&vhost, &["--prefix", "ann-", "for Ann"]).expect_code(0);
    emit_log(&vhost, &["--prefix", "bob-", "for Bob"]).expect_code(0);
    ann.expect_line(" [x] for Ann");
    bob.expect_line(" [x] for Bob");
    Ok(())
}

#[test]
fn wrong_usage_ends_with_2_and_connects_to_nothing() {
    let nobody = harness::silent_peer();
    let url = format!("amqp://127.0.0.1:{}", nobody.port());
    let too_long = "x".repeat(252);
    for (program, options, words) in [
        (env!("CARGO_BIN_EXE_receive_logs"), ["a", "line"], "unexpected argument"),
        (env!("CARGO_BIN_EXE_emit_log"), ["--immediate", "now"], "unexpected argument"),
        (env!("CARGO_BIN_EXE_emit_log"), ["--prefix", &too_long], "over 255 bytes"),
    ] {
        let end = Program::new(program).args(["--url", &url]).args(options).run().expect_code(2);
        assert_eq!(end.stdout, [""; 0], "{options:?}");
        assert!(end.stderr[0].contains(words), "{options:?}: {:#?}", end.stderr);
    }
}

mod own_broker {
    use super::*;

    #[test]
    fn after_a_broker_was_killed_every_receiver_gets_every_line_again() -> Result<()> {
        let node = Node::start()?;
        let vhost = node.vhost()?;
        let mut receivers = [start_receiver(&vhost, &[]), start_receiver(&vhost, &[])];
        receivers.iter_mut().for_each(|receiver| drop(new_queue(receiver)));
        emit(&vhost, "before");
        receivers.iter_mut().for_each(|receiver| receiver.expect_line(" [x] before"));
        node.write_out()?;
        node.kill()?;
        node.restart()?;

        let names = receivers.each_mut().map(new_queue);
        wait_for_queues(&vhost, &[&names[0], &names[1]])?;
        emit(&vhost, "after");
        for mut receiver in receivers {
            receiver.expect_line(" [x] after");
            assert_eq!(stop(receiver).stdout, [WAITING, " [x] before", " [x] after"]);
        }
        Ok(())
    }
}
