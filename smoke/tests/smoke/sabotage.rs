//! Brokers and networks that were sabotaged: each is found out by the right check, in words that name the cause.

use std::thread;
use std::time::{Duration, Instant};

use broker::{Node, Vhost};
use harness::{Relay, silent_peer};
use serde_json::{Value, json};

use crate::frame_relay::{self, Tampering};
use crate::support::*;

fn set_policy(vhost: &Vhost<'_>, definition: Value) {
    let policy = json!({"pattern": ".*", "definition": definition, "apply-to": "queues"});
    broker::node().put(&format!("/api/policies/{}/sabotage", vhost.name()), &policy).unwrap();
}

fn tampered(vhost: &Vhost<'_>, tampering: Tampering) -> String {
    vhost.url_through(frame_relay::start(broker::node().port(), tampering))
}

#[test]
fn a_limit_on_the_vhosts_queues() {
    let vhost = broker::node().vhost().unwrap();
    let limit = format!("/api/vhost-limits/{}/max-queues", vhost.name());
    broker::node().put(&limit, &json!({"value": 0})).unwrap();
    let report = report(smoke(&vhost.url()));
    assert_eq!(report.end.code, Some(1));
    report.expect_first_failure("queue", &["queue limit", "rabbitmqctl set_vhost_limits -p"]);
    expect_nothing_left(&vhost);
}

#[test]
fn a_policy_that_keeps_queues_empty() {
    let vhost = broker::node().vhost().unwrap();
    set_policy(&vhost, json!({"max-length": 0}));
    let report = report(smoke(&vhost.url()));
    assert_eq!(report.end.code, Some(1));
    report.expect_first_failure("publish", &["an empty queue", "rabbitmqctl list_policies -p"]);
    expect_nothing_left(&vhost);
}

#[test]
fn a_policy_that_sends_dead_letters_elsewhere() {
    let vhost = broker::node().vhost().unwrap();
    set_policy(&vhost, json!({"dead-letter-exchange": "elsewhere", "dead-letter-routing-key": "elsewhere"}));
    let report = report(smoke(&vhost.url()));
    assert_eq!(report.end.code, Some(1));
    let dead = ["dead-rejected", "dead-expired", "dead-maxlen", "dead-delivery-limit"];
    assert_eq!(report.with("fail"), dead, "{}", report.end);
    for check in dead {
        report.expect(check, "fail", &["routing key", "\"elsewhere\"", "redirects dead letters"]);
    }
    expect_nothing_left(&vhost);
}

#[test]
fn a_queue_that_is_deleted_under_it() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    let mut run = smoke(&vhost.url()).args(["--only", "heartbeat", "--repeat", "10"]).start();
    let since = Instant::now();
    loop {
        // Not before the check waits for a message, and on a busy machine perhaps at its next try.
        let name = wait_for_queue(node, vhost.name(), ".idle");
        let is_consumed = vhost.consumers().unwrap().iter().any(|consumer| consumer["queue_name"] == *name);
        if is_consumed && vhost.delete_queue(&name).is_ok() {
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(30), "no queue {name} with a consumer");
    }
    let failed = run.wait_for_line(|line| line.starts_with("heartbeat "));
    assert!(
        failed.contains(" fail ") && failed.contains("somebody deleted this program's queue"),
        "{failed}"
    );
    run.wait(Duration::from_secs(30)).expect_code(1);
    expect_nothing_left(&vhost);
}

#[test]
fn a_network_that_drops_confirms() {
    let vhost = broker::node().vhost().unwrap();
    let report = report(smoke(&tampered(&vhost, Tampering::DropConfirms)).args(["--timeout", "2s"]));
    assert_eq!(report.end.code, Some(1));
    report
        .expect_first_failure("publish", &["the broker's confirm for a message within 2s", "seen: nothing"]);
    expect_nothing_left(&vhost);
}

#[test]
fn a_network_that_reorders() {
    let vhost = broker::node().vhost().unwrap();
    let report = report(smoke(&tampered(&vhost, Tampering::Reorder)).args(["--timeout", "2s"]));
    assert_eq!(report.end.code, Some(1));
    report.expect("publish", "pass", &[]);
    report.expect("order", "fail", &["out of order", "reorders messages"]);
    expect_nothing_left(&vhost);
}

#[test]
fn a_network_that_duplicates() {
    let vhost = broker::node().vhost().unwrap();
    let report = report(smoke(&tampered(&vhost, Tampering::Duplicate)).args(["--timeout", "2s"]));
    assert_eq!(report.end.code, Some(1));
    report.expect("publish", "pass", &[]);
    report.expect("hello", "fail", &["message 1 a second time: duplicated", "duplicates messages"]);
    report.expect("order", "fail", &["duplicated"]);
    expect_nothing_left(&vhost);
}

#[test]
fn a_network_that_changes_bodies() {
    let vhost = broker::node().vhost().unwrap();
    let report = report(smoke(&tampered(&vhost, Tampering::Corrupt)).args(["--timeout", "2s"]));
    assert_eq!(report.end.code, Some(1));
    report.expect("publish", "pass", &[]);
    report.expect("hello", "fail", &["not what was sent", "changes or mixes up messages"]);
    report.expect("large-body", "fail", &["a body of 1048576 bytes", "changed from"]);
    report.expect("binary-body", "fail", &["changed from"]);
    expect_nothing_left(&vhost);
}

#[test]
fn a_network_that_delays_messages_by_3_seconds() {
    let vhost = broker::node().vhost().unwrap();
    let url = tampered(&vhost, Tampering::Delay(Duration::from_secs(3)));
    let run = |more: &[&str]| report(smoke(&url).args(["--only", "hello", "--slow", "2s"]).args(more));
    let impatient = run(&["--timeout", "2s"]);
    assert_eq!(impatient.end.code, Some(1));
    impatient.expect("hello", "fail", &["get message 1 of 3 from the queue", "within 2s", "--timeout"]);
    for (more, code) in [(&["--timeout", "20s"][..], 0), (&["--timeout", "20s", "--strict"], 1)] {
        let patient = run(more);
        assert_eq!(patient.end.code, Some(code));
        patient.expect("hello", "warn", &["slow: took ", "instead of at most 2s"]);
        // There and back.
        assert!(patient.check("hello")["ms"].as_f64().unwrap() >= 6000.0, "{}", patient.end);
    }
    expect_nothing_left(&vhost);
}

#[test]
fn a_network_that_delays_everything_by_3_seconds() {
    let vhost = broker::node().vhost().unwrap();
    let relay = Relay::start(("127.0.0.1", broker::node().port())).unwrap();
    relay.delay(Duration::from_secs(3));
    let report = report(smoke(&vhost.url_through(relay.port())).args(["--wait", "0s", "--timeout", "5s"]));
    assert_eq!(report.end.code, Some(2));
    report.expect("tcp", "pass", &[]);
    report.expect("broker", "fail", &["takes connections but does not answer"]);
    report.expect("hello", "skipped", &[]);
}

#[test]
fn peers_that_are_no_brokers() {
    let nothing = broker::free_port().unwrap();
    let silent = silent_peer();
    let vhost = broker::node().vhost().unwrap();
    let wrong_password = vhost.url().replace("guest:guest", "guest:s3cret");
    let wrong_vhost = format!("{}-not", vhost.url());
    let tls = vhost.url().replace("amqp://", "amqps://");
    for (url, check, words) in [
        (&*format!("amqp://127.0.0.1:{nothing}"), "tcp", &["connection refused", "nothing listens"][..]),
        ("amqp://no-such-host.invalid", "tcp", &["host name"]),
        (&format!("amqp://127.0.0.1:{}", silent.port()), "broker", &["no answer"]),
        (&broker::node().management_url().replace("http", "amqp"), "broker", &["is it the AMQP port (5672"]),
        (&wrong_password, "login", &["403", "password is wrong"]),
        (&wrong_vhost, "vhost", &["530", "no such vhost"]),
        (&tls, "tls", &["speaks no TLS"]),
    ] {
        let report = report(smoke(url).args(["--wait", "0s", "--timeout", "2s"]));
        assert_eq!(report.end.code, Some(2), "{url}: {}", report.end);
        report.expect(check, "fail", words);
        report.expect("hello", "skipped", &["which did not pass"]);
        assert_eq!(report.value["outcome"], "unreachable");
    }
}

#[test]
fn a_silent_host_of_several_has_its_share_of_the_time_only() {
    let vhost = broker::node().vhost().unwrap();
    let (silent, sound) = (silent_peer().port(), broker::node().port());
    let url = format!("amqp://guest:guest@127.0.0.1:{silent},127.0.0.1:{sound}/{}", vhost.name());
    let report = report(smoke(&url).args(["--only", "hello", "--timeout", "8s"]));
    assert_eq!(report.end.code, Some(0), "{}", report.end);
    report.expect("broker", "pass", &["RabbitMQ"]);
    report.expect("hello", "pass", &[]);
}

#[test]
fn a_deadline_that_comes_first() {
    let vhost = broker::node().vhost().unwrap();
    let report = report(smoke(&vhost.url()).args(["--only", "heartbeat,get", "--deadline", "3s"]));
    assert_eq!(report.end.code, Some(3), "{}", report.end);
    report.expect("heartbeat", "fail", &["before the deadline", "--deadline"]);
    assert_eq!(report.value["outcome"], "deadline");
    expect_nothing_left(&vhost);
}

#[test]
fn a_broker_that_is_still_starting_is_waited_for() {
    let vhost = broker::node().vhost().unwrap();
    let relay = Relay::start(("127.0.0.1", broker::node().port())).unwrap();
    relay.refuse(true);
    let run = smoke(&vhost.url_through(relay.port()))
        .args(["--only", "hello", "--wait", "60s", "--slow", "10s"])
        .start();
    thread::sleep(Duration::from_secs(12));
    relay.refuse(false);
    let end = { run }.wait(Duration::from_secs(60)).expect_code(0);
    assert!(end.elapsed > Duration::from_secs(12), "{end}");
    assert!(!end.to_string().contains("slow: "), "a broker that is waited for is not slow: {end}");
}

mod own_broker {
    use super::*;

    #[test]
    fn a_memory_alarm() {
        let node = Node::start().unwrap();
        node.memory_alarm(true).unwrap();
        let report = report(smoke(&node.url()).args(["--timeout", "5s"]));
        assert_eq!(report.end.code, Some(1));
        report.expect_first_failure(
            "publish",
            &["blocks publishing: low on memory", "rabbitmq-diagnostics alarms"],
        );
        assert_eq!(report.value["cleanup"]["problem"], json!(null));
        assert_eq!(left_on(&node, "%2f"), [""; 0]);
    }

    #[test]
    fn a_broker_that_stops_in_the_middle() {
        for stop in [Node::kill, Node::stop] {
            let node = Node::start().unwrap();
            let options = ["--only", "heartbeat,global-qos", "--repeat", "5"];
            let mut run = smoke(&node.url()).args(options).start();
            // This check rests for 3.5 s each time. An orderly stop may take longer than the first one.
            wait_for_queue(&node, "%2f", ".heartbeat.idle");
            stop(&node).unwrap();
            let failed = run.wait_for_line(|line| line.starts_with("heartbeat "));
            assert!(failed.contains(" fail ") && failed.contains("connection lost"), "{failed}");
            let rest = run.wait_for_line(|line| line.starts_with("global-qos "));
            assert!(
                rest.contains(" skipped ") && rest.contains("the broker is gone since heartbeat"),
                "{rest}"
            );
            let end = run.wait(Duration::from_secs(30)).expect_code(1);
            assert!(end.to_string().contains("not known whether all are gone: "), "{end}");
            node.restart().unwrap();
            wait_until_nothing_left(&node, "%2f", Duration::from_secs(10));
        }
    }

    #[test]
    fn a_broker_that_freezes_in_the_middle() {
        let node = Node::start().unwrap();
        let mut run = smoke(&node.url()).args(["--timeout", "5s"]).start();
        wait_for_queue(&node, "%2f", ".heartbeat.idle");
        node.pause().unwrap();
        let failed = run.wait_for_line(|line| line.starts_with("heartbeat "));
        assert!(failed.contains(" fail "), "{failed}");
        let end = run.wait(Duration::from_secs(30)).expect_code(1);
        assert!(end.to_string().contains("the broker is gone since heartbeat"), "{end}");
        node.resume().unwrap();
        wait_until_nothing_left(&node, "%2f", Duration::from_secs(30));
    }
}
