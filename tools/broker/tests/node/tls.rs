//! A node that listens with TLS.

use anyhow::Result;
use broker::{Authority, Certificates, Node};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::{Connection, ConnectionProperties};

use crate::support::{Program, directory, listeners, processes};

/// What a client trusts and, if any, its own certificate.
fn config(ca: &str, client: Option<&broker::Identity>) -> OwnedTLSConfig {
    OwnedTLSConfig {
        identity: client.map(|client| OwnedIdentity::PKCS8 {
            pem: client.certificate.clone().into_bytes(),
            key: client.key.clone().into_bytes(),
        }),
        cert_chain: Some(ca.to_owned()),
    }
}

/// Logs in and out again, or says what went wrong.
async fn connect(url: &str, config: OwnedTLSConfig) -> Result<(), String> {
    let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
    let connected =
        Connection::connect_with_config(url, ConnectionProperties::default(), config, runtime).await;
    match connected {
        Ok(connection) => connection.close(200, "done".into()).await.map_err(|error| error.to_string()),
        Err(error) => Err(format!("{error} {error:?}")),
    }
}

/// One node for all of them, since a node takes longer to start than all of this.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_certificate_logs_in_and_others_are_refused() -> Result<()> {
    let authority = Authority::new(1)?;
    let certificates = authority.certificates()?;
    let other = Certificates::for_days(1)?;
    let node = Node::builder().tls(&certificates).start()?;
    let vhost = node.vhost()?;
    let ca = &certificates.ca_certificate;
    let client = Some(&certificates.client);

    assert_eq!(connect(&vhost.tls_url(), config(ca, client)).await, Ok(()));
    assert_eq!(connect(&node.tls_url().replace("localhost", "127.0.0.1"), config(ca, client)).await, Ok(()));
    // Login by certificate: the user of the URL is not asked for, and that of the certificate must exist.
    let external = |url: String| url.replace("guest:guest", "nobody:wrong") + "?auth_mechanism=external";
    assert_eq!(connect(&external(vhost.tls_url()), config(ca, client)).await, Ok(()));
    let stranger = authority.client("stranger")?;
    for (url, config, expected) in [
        (external(vhost.tls_url()), config(ca, Some(&stranger)), "ACCESS_REFUSED"),
        (vhost.tls_url(), config(ca, None), "received fatal alert: CertificateRequired"),
        (vhost.tls_url(), config(ca, Some(&other.client)), "received fatal alert: UnknownCA"),
        (vhost.tls_url(), config(&other.ca_certificate, client), "UnknownIssuer"),
    ] {
        let error = connect(&url, config).await.unwrap_err();
        // With TLS 1.3 the broker looks at the client's certificate after the client's first words; the reset
        // that follows its refusal may overtake it.
        let reset = expected.starts_with("received") && error.contains("reset by peer");
        assert!(error.contains(expected) || reset, "{expected} not in: {error}");
    }
    // The plain listener is there as well.
    assert_eq!(connect(&vhost.url(), OwnedTLSConfig::default()).await, Ok(()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_a_client_must_refuse() -> Result<()> {
    let authority = Authority::new(1)?;
    let good = authority.certificates()?;
    for (server, expected) in
        [(authority.expired_server()?, "Expired"), (authority.server_elsewhere()?, "NotValidForName")]
    {
        let certificates = Certificates { server, ..good.clone() };
        let node = Node::builder().management(false).plain(false).tls(&certificates).start()?;
        let error = connect(&node.tls_url(), config(&good.ca_certificate, Some(&good.client))).await;
        let error = error.unwrap_err();
        assert!(error.contains(expected), "{expected} not in: {error}");
        // Nothing but TLS listens for AMQP, and on this machine only.
        assert!(!broker::speaks_amqp(("127.0.0.1", node.port()), std::time::Duration::from_secs(1)));
        let pids = processes(&directory(&node.rabbitmqctl_line())?)?;
        let listeners = listeners(&pids)?;
        assert!(listeners.contains(&format!("0100007F:{:04X}", node.tls_port())), "{listeners:?}");
        assert!(listeners.iter().all(|address| !address.starts_with("00000000:")), "{listeners:?}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_with_tls_listens_with_nothing_else() -> Result<()> {
    let broker = || std::process::Command::new(env!("CARGO_BIN_EXE_broker"));
    let folder = tempfile::tempdir()?;
    let none = broker().args(["--tls", "--certs"]).arg(folder.path()).output()?;
    let errors = String::from_utf8_lossy(&none.stderr);
    assert!(errors.starts_with("error: no certificates: make them with `cargo xtask certs`"), "{errors}");
    assert_eq!(none.status.code(), Some(1));

    let certificates = Certificates::for_days(1)?;
    let files = certificates.write(folder.path())?;
    let port = broker::free_port()?;
    let program =
        Program::start(broker().args(["--tls", "--port", &port.to_string(), "--certs"]).arg(folder.path()))?;
    let url = format!("amqps://guest:guest@localhost:{port}/%2f");
    assert_eq!(program.line_with("AMQP_URL")?, format!("export AMQP_URL={url}"));
    let options = program.line_with("--client-key")?;
    assert!(options.ends_with(&*format!("--client-key {}", files.client_key.display())), "{options}");
    let directory = directory(&program.line_with("rabbitmqctl")?)?;
    program.line_with("press Ctrl-C to stop")?;
    assert_eq!(connect(&url, config(&certificates.ca_certificate, Some(&certificates.client))).await, Ok(()));
    assert!(!broker::speaks_amqp(("127.0.0.1", port), std::time::Duration::from_secs(1)));
    program.signal("TERM")?;
    let (status, errors) = program.end()?;
    assert!(status.success(), "{status}: {errors}");
    crate::support::until_nothing_is_left(&directory)
}
