//! Nothing stays on the broker, however the program ends.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use broker::Vhost;
use harness::{Program, Running};
use serde_json::json;

use crate::support::*;

/// Checks that have queues which outlive their connection, over and over.
fn endless(vhost: &Vhost<'_>) -> Program {
    let checks =
        "quorum,dead-delivery-limit,transient-queue,exchange-binding,alternate-exchange,topic,stream";
    let program = smoke(&vhost.url()).args(["--skip", "connection,basics"]);
    program.args(["--only", checks, "--repeat", "100000", "--jobs", "7", "--expires", "2s"])
}

/// Starts it and waits until a durable queue of it is on the broker.
fn at_work(vhost: &Vhost<'_>) -> Running {
    let running = endless(vhost).start();
    wait_for_queue(broker::node(), vhost.name(), ".quorum");
    running
}

#[test]
fn a_stopped_run_leaves_nothing_and_says_so() {
    for stop in [Running::interrupt, Running::terminate] {
        let vhost = broker::node().vhost().unwrap();
        let mut running = at_work(&vhost);
        stop(&running);
        let end = running.wait(Duration::from_secs(10)).expect_code(130);
        expect_nothing_left(&vhost);
        let lines = end.stdout.join("\n");
        assert!(lines.contains("names used, none left\ninterrupted: "), "{end}");
    }
}

#[test]
fn after_kill_9_and_the_expiry_time_nothing_is_left() {
    let vhost = broker::node().vhost().unwrap();
    for _ in 0..5 {
        let mut running = at_work(&vhost);
        running.kill();
        assert_eq!(running.wait(Duration::from_secs(5)).signal, Some(9));
    }
    // The expiry time of 2 s, what a queue that was asked for anything lives on, and the guards' patience.
    wait_until_nothing_left(broker::node(), vhost.name(), Duration::from_secs(20));
}

#[test]
fn what_others_have_on_the_broker_is_not_touched() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    for name in ["hello", "task_queue", "rpc_queue", "smoke", "smoke.abcdefgh.hello.hello"] {
        let path = format!("/api/queues/{}/{name}", vhost.name());
        node.put(&path, &json!({"durable": true})).unwrap();
        let message =
            json!({"routing_key": name, "payload": name, "payload_encoding": "string", "properties": {}});
        node.post(&format!("/api/exchanges/{}/amq.default/publish", vhost.name()), &message).unwrap();
    }
    for name in ["logs", "smoke.logs"] {
        node.put(&format!("/api/exchanges/{}/{name}", vhost.name()), &json!({"type": "fanout"})).unwrap();
    }
    let before = left_on(node, vhost.name());
    assert_eq!(before.len(), 7);
    smoke(&vhost.url()).run().expect_code(0);
    assert_eq!(left_on(node, vhost.name()), before);
    for queue in vhost.queues().unwrap() {
        assert_eq!(queue["messages"], 1, "{queue}");
    }
}

#[test]
fn a_reader_that_goes_away_changes_nothing() {
    let vhost = broker::node().vhost().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_smoke"));
    command.args(["--url", &vhost.url(), "--only", "quorum,heartbeat"]).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // As in `smoke | head -1`.
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("smoke 0.1.0 on "), "{first}");
    let end = child.wait_with_output().unwrap();
    assert_eq!(end.status.code(), Some(0), "{}", String::from_utf8_lossy(&end.stderr));
    assert_eq!(String::from_utf8_lossy(&end.stderr), "");
    expect_nothing_left(&vhost);
}
