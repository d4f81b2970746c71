//! TLS against a node that wants a client's certificate: what works, and how each mistake is told.

use std::path::PathBuf;

use anyhow::Result;
use broker::{Authority, CertificateFiles, Certificates, Node};
use shared::{Configuration, Error, Scheme, Shutdown, State};

use crate::support::within;
use crate::waiting;

/// A broker's and a client's files, in a folder that is theirs.
struct Files {
    ca_cert: Option<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
}

impl Files {
    fn right(files: &CertificateFiles) -> Self {
        Self {
            ca_cert: Some(files.ca_certificate.clone()),
            client: Some((files.client_certificate.clone(), files.client_key.clone())),
        }
    }

    fn configuration(&self, port: u16, scheme: Scheme) -> Result<Configuration> {
        let read = |path: Option<&PathBuf>| path.map(std::fs::read).transpose();
        Ok(Configuration {
            name: "tls".to_owned(),
            scheme,
            port,
            ca_cert: read(self.ca_cert.as_ref())?,
            client_cert: read(self.client.as_ref().map(|client| &client.0))?,
            client_key: read(self.client.as_ref().map(|client| &client.1))?,
            ..Configuration::default()
        })
    }
}

async fn refused(configuration: &Configuration) -> Error {
    within(configuration.open(&Shutdown::new())).await.err().expect("the connection to be refused")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_the_right_files_it_works_and_each_wrong_one_is_one_clear_line() -> Result<()> {
    let authority = Authority::new(1)?;
    let folder = tempfile::tempdir()?;
    let files = authority.certificates()?.write(&folder.path().join("right"))?;
    let stranger = Certificates::for_days(1)?.write(&folder.path().join("stranger"))?;
    let node = Node::builder().tls(&authority.certificates()?).start()?;

    let right = Files::right(&files).configuration(node.tls_port(), Scheme::Amqps)?;
    let shutdown = Shutdown::new();
    let connection = within(right.open(&shutdown)).await?;
    assert!(matches!(*connection.state().borrow(), State::Up { generation: 1 }));
    let listed = node.rabbitmqctl(&["-q", "list_connections", "ssl", "peer_cert_subject"])?;
    assert!(listed.contains("true\tCN=guest"), "{listed}");
    shutdown.close_connections().await;

    let as_a_program = move || {
        waiting::run(async {
            let shutdown = Shutdown::new();
            let connection = right.open(&shutdown).await?;
            waiting::a_large_message_passes(&connection).await?;
            shutdown.close_connections().await;
            Ok(())
        })
    };
    tokio::task::spawn_blocking(as_a_program).await??;

    let untrusted = Files { ca_cert: Some(stranger.ca_certificate.clone()), ..Files::right(&files) };
    let unknown = Files { ca_cert: None, ..Files::right(&files) };
    let anonymous = Files { client: None, ..Files::right(&files) };
    let foreign =
        Files { client: Some((stranger.client_certificate, stranger.client_key)), ..Files::right(&files) };
    for (files, words) in [
        (untrusted, "give that authority with --ca-cert FILE"),
        (unknown, "give that authority with --ca-cert FILE"),
        // In the words of RabbitMQ 3.8, on an Erlang of that time, not every reason has a name of its own.
        (foreign, "its own authority"),
    ] {
        let error = refused(&files.configuration(node.tls_port(), Scheme::Amqps)?).await;
        expect_one_attempt(&error, words);
    }
    // The alert may be lost with the connection, which is then tried again for a while.
    let error = refused(&anonymous.configuration(node.tls_port(), Scheme::Amqps)?).await.explain();
    assert!(error.contains("give --client-cert FILE and --client-key FILE"), "{error}");
    // TLS to the port without it, and the other way round; neither falls back.
    let error = refused(&Files::right(&files).configuration(node.port(), Scheme::Amqps)?).await;
    expect_one_attempt(&error, "the port speaks no TLS");
    let nothing = Files { ca_cert: None, client: None };
    let error = refused(&nothing.configuration(node.tls_port(), Scheme::Amqp)?).await;
    assert!(error.explain().contains("needs amqps://"), "{}", error.explain());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brokers_certificate_that_is_expired_or_of_another_name_is_not_taken() -> Result<()> {
    let authority = Authority::new(1)?;
    let folder = tempfile::tempdir()?;
    let right = authority.certificates()?;
    let files = right.write(folder.path())?;
    for (server, words) in [
        (authority.expired_server()?, "its certificate has expired"),
        (authority.server_elsewhere()?, "its certificate is for another host name"),
    ] {
        let node = Node::builder().tls(&Certificates { server, ..right.clone() }).start()?;
        let error = refused(&Files::right(&files).configuration(node.tls_port(), Scheme::Amqps)?).await;
        expect_one_attempt(&error, words);
    }
    Ok(())
}

/// Trying again cannot help, so nothing is tried again.
#[track_caller]
fn expect_one_attempt(error: &Error, words: &str) {
    let Error::Closed(cause) = error else { panic!("{error:?}") };
    assert!(matches!(**cause, Error::Connect { .. }), "{error:?}");
    let line = error.explain();
    assert!(line.contains(words), "{words}: {line}");
    assert!(!line.contains('\n') && !line.contains(":guest@"), "{line}");
}
