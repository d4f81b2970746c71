//! Brokers that want TLS, and certificates that are about to expire.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use broker::Node;
use harness::Program;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};

use crate::support::*;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An authority and what it has signed, as files in a directory.
struct Authority<'d> {
    directory: &'d Path,
    issuer: Issuer<'static, KeyPair>,
}

impl<'d> Authority<'d> {
    fn new(directory: &'d Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        fs::write(directory.join("ca.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        Self { directory, issuer: Issuer::new(params, key) }
    }

    /// Writes `name.pem` and `name.key`.
    fn sign(&self, name: &str, names: &[&str], usage: ExtendedKeyUsagePurpose, valid: Duration) {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        params.not_before = (SystemTime::now() - DAY).into();
        params.not_after = (SystemTime::now() + valid).into();
        let signed = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(self.file(name, "pem"), signed.pem()).unwrap();
        fs::write(self.file(name, "key"), key.serialize_pem()).unwrap();
    }

    fn file(&self, name: &str, kind: &str) -> PathBuf {
        self.directory.join(format!("{name}.{kind}"))
    }
}

fn with_files(program: Program, options: &[(&str, PathBuf)]) -> Program {
    options.iter().fold(program, |program, (option, file)| program.arg(option).arg(file))
}

#[test]
fn over_tls_with_a_client_certificate_all_passes_and_each_mistake_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path());
    let (server, client) = (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    let names = ["localhost", "127.0.0.1"];
    authority.sign("server", &names, server.clone(), 10 * DAY + DAY / 2);
    authority.sign("client", &[], client, 10 * DAY);
    let port = broker::free_port().unwrap();
    let file = |name: &str, kind: &str| authority.file(name, kind);
    let node = Node::builder()
        .config(&format!("listeners.ssl.1 = 127.0.0.1:{port}"))
        .config(&format!("ssl_options.cacertfile = {}", file("ca", "pem").display()))
        .config(&format!("ssl_options.certfile = {}", file("server", "pem").display()))
        .config(&format!("ssl_options.keyfile = {}", file("server", "key").display()))
        .config("ssl_options.verify = verify_peer")
        .config("ssl_options.fail_if_no_peer_cert = true")
        .start()
        .unwrap();
    let url = format!("amqps://guest:guest@localhost:{port}/%2f");
    let ca = ("--ca-cert", file("ca", "pem"));
    let own = [("--client-cert", file("client", "pem")), ("--client-key", file("client", "key"))];
    let run = |options: &[(&str, PathBuf)]| report(with_files(smoke(&url).args(["--wait", "0s"]), options));
    let all = [&[ca.clone()][..], &own].concat();

    let soon = run(&all);
    assert_eq!(soon.end.code, Some(0), "{}", soon.end);
    soon.expect("tls", "warn", &["TLSv1_", "CN=server has 10 days left: renew it"]);
    assert_eq!((soon.with("warn"), soon.with("skipped")), (vec!["tls"], vec![]), "{}", soon.end);

    let without_own = run(&[ca]);
    assert_eq!(without_own.end.code, Some(2));
    assert!(without_own.end.to_string().contains("--client-cert FILE"), "{}", without_own.end);
    let without_ca = run(&own);
    assert_eq!(without_ca.end.code, Some(2));
    without_ca.expect("tls", "fail", &["UnknownIssuer", "--ca-cert FILE"]);
    let plain = report(smoke(&url.replace("amqps", "amqp")).args(["--wait", "0s", "--timeout", "2s"]));
    assert_eq!(plain.end.code, Some(2));
    plain.expect("broker", "fail", &["amqps://"]);

    authority.sign("server", &names, server, 400 * DAY);
    node.restart().unwrap();
    run(&all).expect("tls", "pass", &["has 399 days left"]);
}
