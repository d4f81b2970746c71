//! A sound broker: all passes, in all ways to ask for it.

use serde_json::json;

use crate::frame_relay::{self, Tampering};
use crate::support::*;

#[test]
fn on_a_sound_broker_all_checks_pass_and_nothing_is_left() {
    let vhost = broker::node().vhost().unwrap();
    let report = report(smoke(&vhost.url()));
    assert_eq!(report.end.code, Some(0), "{}", report.end);
    assert_eq!(report.with("skipped"), ["tls"]);
    assert_eq!(report.with("fail"), [""; 0]);
    expect_unsupported(&report);
    assert_eq!(report.value["broker"]["product"], "RabbitMQ");
    assert_eq!(report.value["cleanup"]["left"], json!([]));
    assert_eq!(report.value["cleanup"]["problem"], json!(null));
    assert!(report.value["cleanup"]["names"].as_u64().unwrap() > 40);
    expect_nothing_left(&vhost);
}

/// What this version has not, or has no more, and nothing else, each with the reason.
#[track_caller]
fn expect_unsupported(report: &Report) {
    let node = broker::node();
    let mut expected = Vec::new();
    // Refused from 4.3 on, unless somebody permits it, as Debian does: the broker says it in so many words.
    if report.check("transient-queue")["status"] == "unsupported" {
        report.expect("transient-queue", "unsupported", &["541", "`transient_nonexcl_queues` is deprecated"]);
        expected.push("transient-queue");
    }
    if node.is_from(4, 3).unwrap() {
        report.expect(
            "global-qos",
            "unsupported",
            &["is answered, but each consumer has a limit of its own"],
        );
        expected.push("global-qos");
    }
    if !node.is_from(3, 9).unwrap() {
        report.expect("stream", "unsupported", &["406", "invalid_queue_type", "streams with 3.9"]);
        expected.push("stream");
    }
    let mut unsupported = report.with("unsupported");
    unsupported.sort_unstable();
    expected.sort_unstable();
    assert_eq!(unsupported, expected, "{}", report.end);
}

#[test]
fn several_at_once_and_several_times_come_to_the_same() {
    let vhost = broker::node().vhost().unwrap();
    let report = report(smoke(&vhost.url()).args(["--jobs", "4", "--repeat", "3", "--profile", "quick"]));
    assert_eq!(report.end.code, Some(0), "{}", report.end);
    let hello = report.check("hello");
    assert_eq!(hello["times"]["count"], 3);
    let time = |name: &str| hello["times"][name].as_f64().unwrap();
    assert!(0.0 < time("min_ms") && time("min_ms") <= time("p50_ms") && time("p50_ms") <= time("max_ms"));
    expect_nothing_left(&vhost);
}

#[test]
fn a_relay_that_only_passes_on_changes_nothing() {
    let vhost = broker::node().vhost().unwrap();
    let port = frame_relay::start(broker::node().port(), Tampering::None);
    let report = report(smoke(&vhost.url_through(port)));
    assert_eq!((report.end.code, report.with("skipped")), (Some(0), vec!["tls"]), "{}", report.end);
}

#[test]
fn the_table_has_a_line_for_each_check() {
    let vhost = broker::node().vhost().unwrap();
    let end = smoke(&vhost.url()).args(["--only", "hello,get"]).run().expect_code(0);
    assert_eq!(end.stderr, [""; 0]);
    let mut lines = end.stdout.iter();
    assert!(lines.next().unwrap().starts_with("smoke 0.1.0 on amqp://guest@127.0.0.1:"), "{end}");
    assert_eq!(lines.next().unwrap(), "CHECK                STATUS             MS  NOTE");
    for name in ["tcp", "broker", "login", "vhost", "queue", "publish", "hello", "get"] {
        let line = lines.next().unwrap();
        assert!(line.starts_with(&format!("{name:<20} pass ")), "{line}");
    }
    assert_eq!(lines.next().unwrap(), "cleanup: 4 names used, none left");
    assert!(lines.next().unwrap().starts_with("passed: 8 pass in "), "{end}");
    assert!(!end.to_string().contains('\u{1b}'), "no colour without a terminal: {end}");
}

#[test]
fn the_users_prefix_goes_before_all_names() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    // A user who may use nothing but what begins with the prefix.
    let user = crate::permissions::User::new(
        &vhost,
        ["^ann-smoke\\.|^amq\\.gen", "^(ann-smoke\\.|amq\\.gen|amq\\.default)", "^ann-smoke\\.|^amq\\.gen"],
    );
    let report = report(smoke(&user.url()).args(["--prefix", "ann-"]));
    assert_eq!((report.end.code, report.with("skipped")), (Some(0), vec!["tls"]), "{}", report.end);
    expect_nothing_left(&vhost);
}

#[test]
fn whatever_the_default_type_of_queues_all_passes() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    node.put(&format!("/api/vhosts/{}", vhost.name()), &json!({"defaultqueuetype": "quorum"})).unwrap();
    let report = report(smoke(&vhost.url()));
    assert_eq!((report.end.code, report.with("skipped")), (Some(0), vec!["tls"]), "{}", report.end);
    expect_nothing_left(&vhost);
}

#[test]
fn no_password_is_ever_printed() {
    let vhost = broker::node().vhost().unwrap();
    let user = crate::permissions::User::new(&vhost, [".*"; 3]);
    let wrong = user.url().replace("s3cret", "wr0ng");
    for output in ["table", "json", "junit", "nagios"] {
        for url in [user.url(), wrong.clone()] {
            let end =
                smoke(&url).args(["--only", "connection", "--output", output]).env("RUST_LOG", "trace").run();
            assert!(!end.to_string().replace(&url, "").contains("s3cret"), "{end}");
            assert!(
                !end.stdout.concat().contains("wr0ng") && !end.stderr.concat().contains("wr0ng"),
                "{end}"
            );
        }
    }
}
