//! A node that listens with TLS.

use anyhow::Result;
use broker::{Authority, Certificates, Identity, Node};
use clap::Parser;
use shared::{Connection, ConnectionArgs, Shutdown};

use crate::support::{Program, directory, listeners, processes};

/// The options of a program that connects.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// Logs in and out again as a client that trusts `ca`, or says what went wrong.
async fn connect(url: &str, ca: Option<&str>, client: Option<&Identity>) -> Result<(), String> {
    try_to_connect(url, ca, client).await.map_err(|error| format!("{error:#}"))
}

async fn try_to_connect(url: &str, ca: Option<&str>, client: Option<&Identity>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut line = vec!["client".into(), "--wait=2s".into(), format!("--url={url}")];
    let parts = [
        ("--ca-cert", ca),
        ("--client-cert", client.map(|client| &*client.certificate)),
        ("--client-key", client.map(|client| &*client.key)),
    ];
    for (option, pem) in parts {
        if let Some(pem) = pem {
            let file = folder.path().join(option);
            std::fs::write(&file, pem)?;
            line.push(format!("{option}={}", file.display()));
        }
    }
    let shutdown = Shutdown::new();
    Connection::open(&Args::try_parse_from(line)?.connection, "client", &shutdown).await?;
    shutdown.close_connections().await;
    Ok(())
}

/// One node for all of them, since a node takes longer to start than all of this.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_certificate_logs_in_and_others_are_refused() -> Result<()> {
    let authority = Authority::new(1)?;
    let certificates = authority.certificates()?;
    let other = Certificates::for_days(1)?;
    let node = Node::builder().tls(&certificates).start()?;
    let vhost = node.vhost()?;
    let ca = Some(&*certificates.ca_certificate);
    let client = Some(&certificates.client);

    assert_eq!(connect(&vhost.tls_url(), ca, client).await, Ok(()));
    assert_eq!(connect(&node.tls_url().replace("localhost", "127.0.0.1"), ca, client).await, Ok(()));
    // Login by certificate: the user of the URL is not asked for, and that of the certificate must exist.
    let external = |url: String| url.replace("guest:guest", "nobody:wrong") + "?auth_mechanism=external";
    assert_eq!(connect(&external(vhost.tls_url()), ca, client).await, Ok(()));
    let stranger = authority.client("stranger")?;
    // Only TLS 1.3 has an alert that says what is missed; 3.8 speaks TLS 1.2.
    let missed = if node.is_from(3, 9)? { "CertificateRequired" } else { "HandshakeFailure" };
    let missed = format!("received fatal alert: {missed}");
    for (url, ca, client, expected) in [
        (external(vhost.tls_url()), ca, Some(&stranger), "ACCESS_REFUSED"),
        (vhost.tls_url(), ca, None, &*missed),
        (vhost.tls_url(), ca, Some(&other.client), "received fatal alert: UnknownCA"),
        (vhost.tls_url(), Some(&*other.ca_certificate), client, "UnknownIssuer"),
    ] {
        let error = connect(&url, ca, client).await.unwrap_err();
        // With TLS 1.3 the broker looks at the client's certificate after the client's first words; the reset
        // that follows its refusal may overtake it.
        let reset = expected.starts_with("received") && error.contains("connection reset");
        assert!(error.contains(expected) || reset, "{expected} not in: {error}");
    }
    // The plain listener is there as well.
    assert_eq!(connect(&vhost.url(), None, None).await, Ok(()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_a_client_must_refuse() -> Result<()> {
    let authority = Authority::new(1)?;
    let good = authority.certificates()?;
    for (server, expected) in [
        (authority.expired_server()?, "certificate expired"),
        (authority.server_elsewhere()?, "not valid for name"),
    ] {
        let certificates = Certificates { server, ..good.clone() };
        let node = Node::builder().management(false).plain(false).tls(&certificates).start()?;
        let error = connect(&node.tls_url(), Some(&good.ca_certificate), Some(&good.client)).await;
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
    let (ca, client) = (&*certificates.ca_certificate, &certificates.client);
    assert_eq!(connect(&url, Some(ca), Some(client)).await, Ok(()));
    assert!(!broker::speaks_amqp(("127.0.0.1", port), std::time::Duration::from_secs(1)));
    program.signal("TERM")?;
    let (status, errors) = program.end()?;
    assert!(status.success(), "{status}: {errors}");
    crate::support::until_nothing_is_left(&directory)
}
