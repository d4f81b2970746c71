//! The page about TLS, from top to bottom, against a node that has the settings of the Compose profile `tls`: its
//! commands, on its files' names, print what it says.

#[path = "steps/mod.rs"]
mod steps;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use broker::{Authority, Certificates, Node};
use harness::{Program, Running};

use steps::{Step, is_like};

const PAGE: &str = include_str!("../../docs/tls.md");
const SETTINGS: &str = include_str!("../../tools/compose/tls.conf");
const PLUGINS: [&str; 2] = [
    include_str!("../../tools/compose/enabled_plugins.tls"),
    // Those of the broker without TLS are there, too: that they exist is all that has to be known.
    include_str!("../../tools/compose/enabled_plugins"),
];

/// Where the page shows the first, a broker that speaks TLS 1.2 makes the program say the second.
const TLS_1_2: [(&str, &str); 2] = [
    ("CertificateRequired", "received fatal alert: HandshakeFailure; it misses a client certificate"),
    ("cannot be read as AMQP", "a port that wants TLS needs amqps:// in --url"),
];

/// Where the page is played.
struct Stage {
    folder: tempfile::TempDir,
    node: Node,
    /// A keeper that waits for the striker of the next step, and what it is to print.
    keeper: Option<(Running, Vec<String>)>,
    played: usize,
}

impl Stage {
    fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let right = Certificates::for_days(1)?;
        right.write(&folder.path().join("cert"))?;
        // The node's own copies: it is given others later.
        let files = folder.path().join("of the node");
        right.write(&files)?;
        ensure!(SETTINGS.lines().any(|line| line == "listeners.tcp = none"), "it must listen with TLS only");
        let port = broker::free_port()?;
        let settings = SETTINGS
            .replace("/cert/", &format!("{}/", files.display()))
            .replace("listeners.ssl.default = 5671", &format!("listeners.ssl.default = 127.0.0.1:{port}"));
        ensure!(settings.contains(&port.to_string()) && !settings.contains("/cert/"), "{settings}");
        let mut builder = Node::builder().plain(false).tls_by_config().tls_port(port);
        for line in settings.lines() {
            builder = builder.config(line);
        }
        for name in PLUGINS.iter().flat_map(|list| list.trim().trim_matches(['[', ']', '.']).split(',')) {
            builder = builder.plugin(name);
        }
        Ok(Self { folder, node: builder.start()?, keeper: None, played: 0 })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn play(&mut self, step: &Step) -> Result<()> {
        let words: Vec<_> = step.words.iter().map(String::as_str).collect();
        match words[..] {
            // What it prints is looked at where it is built.
            ["cargo", "xtask", "certs"] => Ok(()),
            ["cargo", "xtask", "certs", "--folder", folder, "--fault", fault] => {
                let authority = Authority::new(1)?;
                let server = match fault {
                    "expired" => authority.expired_server()?,
                    "other-host" => authority.server_elsewhere()?,
                    _ => bail!("no such fault"),
                };
                Certificates { server, ..authority.certificates()? }.write(&self.path(folder)).map(drop)
            }
            ["cargo", "run", "-p", "broker", "--", "--tls"] => Ok(()),
            ["cargo", "run", "-p", "broker", "--", "--tls", "--certs", folder] => {
                self.exchange(&self.path(folder))
            }
            ["docker", "compose", ..] => Ok(()),
            ["cargo", "run", "-p", "striker-keeper", "--bin", "keeper", "--", ref options @ ..] => {
                let keeper = self.program(env!("CARGO_BIN_EXE_keeper"), options)?;
                let mut keeper = keeper.start();
                keeper.wait_for_error_line(|line| line.ends_with(": consuming"));
                self.keeper = Some((keeper, step.output.clone()));
                Ok(())
            }
            ["cargo", "run", "-p", "striker-keeper", "--bin", "striker", "--", ref options @ ..] => {
                let striker = self.program(env!("CARGO_BIN_EXE_striker"), options)?.run();
                let mut printed = [&striker.stdout[..], &striker.stderr].concat();
                // Whether it had to be tried twice is a matter of luck.
                printed.retain(|line| !line.starts_with(" WARN "));
                match TLS_1_2.iter().find(|(page, _)| step.output.iter().any(|line| line.contains(page))) {
                    Some((_, words)) if !self.node.is_from(3, 9)? => {
                        ensure!(printed.len() == 1 && printed[0].contains(words), "{printed:#?}");
                    }
                    _ => self.compare(&step.output, &printed)?,
                }
                if let Some((mut keeper, output)) = self.keeper.take() {
                    let end = keeper.wait(std::time::Duration::from_secs(30)).expect_code(0);
                    self.compare(&output, &end.stdout)?;
                }
                self.played += 1;
                Ok(())
            }
            _ => bail!("nobody knows how to play this"),
        }
    }

    /// A program in a folder that has the page's `./cert`.
    fn program(&self, path: &str, options: &[&str]) -> Result<Program> {
        let options: Vec<_> = options.iter().map(|option| self.with_ports(option)).collect();
        // A shell, to have the page's relative paths mean what they say.
        let enter = format!("cd '{}' && exec \"$0\" \"$@\"", self.folder.path().display());
        Ok(Program::new("sh").args(["-c", &enter, path]).args(options))
    }

    fn with_ports(&self, text: &str) -> String {
        let text = text.replace(":5671", &format!(":{}", self.node.tls_port()));
        text.replace(":5672", &format!(":{}", broker::node().port()))
    }

    fn compare(&self, expected: &[String], printed: &[String]) -> Result<()> {
        let expected: Vec<_> = expected.iter().map(|line| self.with_ports(line)).collect();
        let same = expected.len() == printed.len()
            && expected.iter().zip(printed).all(|(expected, printed)| is_like(expected, printed));
        ensure!(same, "the page says\n{}\nand this is\n{}", expected.join("\n"), printed.join("\n"));
        Ok(())
    }

    /// Gives the node other certificates, as if it had been started with them.
    fn exchange(&self, folder: &Path) -> Result<()> {
        Certificates::read(folder)?.write(&self.path("of the node"))?;
        // It reads them again for the next client.
        self.node.rabbitmqctl(&["eval", "ssl:clear_pem_cache()."]).map(drop)
    }
}

#[test]
fn every_command_of_the_page_prints_what_it_says() -> Result<()> {
    let mut stage = Stage::start()?;
    for step in steps::of(PAGE) {
        stage.play(&step).with_context(|| step.words.join(" "))?;
    }
    ensure!(stage.played == 9, "{} runs of striker, where there were nine", stage.played);
    Ok(())
}
