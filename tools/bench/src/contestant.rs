//! Who takes part: each in a process of its own, so that its processor time is its own as well.

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::{Program, Stream};

use crate::report::Report;
use crate::workload::Workload;

/// The exit code of a contestant that does not do a workload.
pub(crate) const NOT_DONE: u8 = 3;

/// How long a run may take. A slow machine takes a minute for the slowest.
const LIMIT: Duration = Duration::from_secs(600);

/// A way to do the workloads.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Contestant {
    /// This workspace's.
    Shared,
    /// lapin, each call awaited where it stands.
    Lapin,
    /// A program of somebody else's.
    Peer(Peer),
}

/// A program that does the workloads in another language or with another client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Peer {
    pub(crate) name: String,
    command: String,
}

impl FromStr for Peer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, command)) if !name.is_empty() && !command.trim().is_empty() => {
                Ok(Self { name: name.to_owned(), command: command.to_owned() })
            }
            _ => Err("give a name and a command: NAME=COMMAND".to_owned()),
        }
    }
}

impl fmt::Display for Contestant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Shared => "shared",
            Self::Lapin => "lapin",
            Self::Peer(peer) => &peer.name,
        })
    }
}

impl Contestant {
    /// Runs a workload. `None`: it does not do this one.
    pub(crate) fn run(
        &self,
        url: &str,
        workload: Workload,
        messages: usize,
        queue: &str,
    ) -> Result<Option<Report>> {
        let command = self.command(&workload.to_string())?;
        let program = Program::new(command.get_program())
            .args(command.get_args())
            .args([&messages.to_string(), queue])
            .env("AMQP_URL", url)
            .deadline(LIMIT)
            .on_line(pass_errors_on);
        let end = program.try_run().with_context(|| format!("cannot run {self}"))?;
        if end.code == Some(NOT_DONE.into()) {
            return Ok(None);
        }
        ensure!(end.code == Some(0), "{self}: {workload}: {end}");
        let report = Report::read(&end.stdout.join("\n"));
        report.map(Some).with_context(|| format!("{self}: {workload}"))
    }

    /// The process for a workload; number of messages and queue are to be added.
    pub(crate) fn command(&self, workload: &str) -> Result<Command> {
        let own = || env::current_exe().context("cannot find this program");
        let mut command = match self {
            Self::Shared | Self::Lapin => {
                let mut command = Command::new(own()?);
                command.args(["run", &self.to_string()]);
                command
            }
            Self::Peer(peer) => {
                let mut words = peer.command.split_whitespace();
                let Some(program) = words.next() else { bail!("{}: no command", peer.name) };
                let mut command = Command::new(program);
                command.args(words);
                command
            }
        };
        command.arg(workload).stdin(Stdio::null());
        Ok(command)
    }
}

/// Shows what a contestant has to say.
fn pass_errors_on(stream: Stream, line: &str) {
    if stream == Stream::Stderr {
        // Nothing can be done if standard error is closed.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_a_name_and_a_command() {
        let peer: Peer = "rabbitmq-c=./peer --fast".parse().unwrap();
        assert_eq!((&*peer.name, &*peer.command), ("rabbitmq-c", "./peer --fast"));
        for wrong in ["", "peer", "=peer", "peer="] {
            assert!(wrong.parse::<Peer>().is_err(), "{wrong}");
        }
    }
}
