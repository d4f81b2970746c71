//! TLS with a client certificate, and each mistake with it.

use anyhow::{Result, ensure};
use broker::{Authority, Certificates, Node};

use crate::support::{LIMIT, Stage, row};

#[test]
fn fault_24_tls() -> Result<()> {
    row(24, "TLS with the wrong authority, without a client certificate, to the wrong port; a cut", |row| {
        let authority = Authority::new(1)?;
        let folder = tempfile::tempdir()?;
        let files = authority.certificates()?.write(&folder.path().join("right"))?;
        let stranger = Certificates::for_days(1)?.write(&folder.path().join("stranger"))?;
        let node = Node::builder().tls(&authority.certificates()?).start()?;
        let stage = Stage::on(&node)?;
        let relay = harness::Relay::start(("127.0.0.1", node.tls_port()))?;
        let [ca, certificate, key, strange] =
            [&files.ca_certificate, &files.client_certificate, &files.client_key, &stranger.ca_certificate]
                .map(|path| path.to_string_lossy().into_owned());
        let client = ["--client-cert", &certificate, "--client-key", &key];
        let trusting = [&["--ca-cert", &ca], &client[..]].concat();

        let url = stage.tls_url_at(relay.port());
        let keeper = stage.start_keeper(&url, &trusting)?;
        let striker = stage.striker(&url, &[&trusting[..], &["--rate", "100"]].concat()).start();
        keeper.catch.wait_for(5, LIMIT)?;
        let starts = keeper.catch.starts();
        relay.cut();
        keeper.catch.wait_for_return(starts, LIMIT)?;
        stage.expect_keeper(1)?;
        striker.terminate();
        stage.finish(row, striker, keeper)?;

        let tls = stage.tls_url_at(node.tls_port());
        let distrusting = [&["--ca-cert", &strange], &client[..]].concat();
        for (url, options, words) in [
            (&tls, &distrusting[..], "give that authority with --ca-cert FILE"),
            (&tls, &["--ca-cert", &ca], "give --client-cert FILE and --client-key FILE"),
            (&stage.tls_url_at(node.port()), &trusting, "the port speaks no TLS"),
            (&stage.url_at(node.tls_port()), &["--wait", "300ms"], "needs amqps://"),
        ] {
            let line = stage.failure(&mut stage.keeper(url, options).start())?;
            ensure!(line.contains(words), "no '{words}' in: {line}");
        }
        row.seen = "after the cut it is TLS again; each mistake is one line with the option to set, and exit code 1; \
            nothing falls back to plain"
            .to_owned();
        Ok(())
    })
}
