//! Brokers that want TLS, and certificates that are about to expire.

use broker::{CertificateFiles, Certificates, Node};

use crate::support::*;

/// A node that listens with TLS and wants a certificate, and the files for its clients.
fn node_with_tls(days: u32, folder: &std::path::Path) -> (Node, CertificateFiles) {
    let certificates = Certificates::for_days(days).unwrap();
    let node = Node::builder().management(false).tls(&certificates).start().unwrap();
    (node, certificates.write(folder).unwrap())
}

/// Runs it on a URL with these options and files.
fn run(url: &str, files: &[(&str, &std::path::Path)]) -> Report {
    let program = smoke(url).args(["--wait", "0s"]);
    report(files.iter().fold(program, |program, (option, file)| program.arg(option).arg(file)))
}

/// What is warned of, but for what RabbitMQ 4 calls deprecated.
fn warnings(report: &Report) -> Vec<&str> {
    let deprecated = ["transient-queue", "global-qos"];
    report.with("warn").into_iter().filter(|check| !deprecated.contains(check)).collect()
}

#[test]
fn over_tls_with_a_client_certificate_all_passes_and_each_mistake_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (node, files) = node_with_tls(10, folder.path());
    let url = node.tls_url();
    let ca = ("--ca-cert", &*files.ca_certificate);
    let own = [("--client-cert", &*files.client_certificate), ("--client-key", &*files.client_key)];
    let all = [ca, own[0], own[1]];

    let soon = run(&url, &all);
    assert_eq!(soon.end.code, Some(0), "{}", soon.end);
    soon.expect("tls", "warn", &["TLSv1_", "CN=localhost has 9 days left: renew it"]);
    assert_eq!((warnings(&soon), soon.with("skipped")), (vec!["tls"], vec![]), "{}", soon.end);

    // The user of the certificate logs in; that of the URL is not asked for.
    let external = url.replace("guest:guest", "nobody:wrong") + "?auth_mechanism=external";
    assert_eq!(run(&external, &all).end.code, Some(0));

    let without_own = run(&url, &[ca]);
    assert_eq!(without_own.end.code, Some(2), "{}", without_own.end);
    // With TLS 1.2, that of RabbitMQ 3.8, the server says no during the handshake, else after it; and who speaks
    // plainly gets an answer instead of an end.
    let (failed, plainly) = match broker::node().is_from(3, 9).unwrap() {
        true => (vec!["broker"], "write amqps://"),
        false => (vec!["tls", "broker"], "a port that wants TLS needs amqps://"),
    };
    assert_eq!(without_own.with("fail"), failed, "{}", without_own.end);
    let without_ca = run(&url, &own);
    assert_eq!(without_ca.end.code, Some(2), "{}", without_ca.end);
    without_ca.expect("tls", "fail", &["UnknownIssuer", "--ca-cert FILE"]);
    let plain = run(&url.replace("amqps", "amqp"), &[]);
    assert_eq!(plain.end.code, Some(2), "{}", plain.end);
    plain.expect("broker", "fail", &[plainly]);
}

#[test]
fn a_certificate_with_time_left_passes() {
    let folder = tempfile::tempdir().unwrap();
    let (node, files) = node_with_tls(400, folder.path());
    let files = [
        ("--ca-cert", &*files.ca_certificate),
        ("--client-cert", &*files.client_certificate),
        ("--client-key", &*files.client_key),
    ];
    let report = run(&node.tls_url(), &files);
    assert_eq!((report.end.code, warnings(&report)), (Some(0), vec![]), "{}", report.end);
    report.expect("tls", "pass", &["has 399 days left"]);
}
