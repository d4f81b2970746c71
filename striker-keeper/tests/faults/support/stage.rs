//! Where a row plays: a vhost, a user with a password that nobody can guess, and the questions to both.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use broker::{Node, Vhost};
use harness::{End, Program, Relay, Running};
use serde_json::json;

use super::{LIMIT, Row, Tally, Watched, eventually};

/// A vhost and a user of its own on a node.
pub(crate) struct Stage<'n> {
    pub(crate) node: &'n Node,
    pub(crate) vhost: Vhost<'n>,
    pub(crate) user: String,
    password: String,
}

impl<'n> Stage<'n> {
    /// A new vhost with a new user who may do everything in it.
    pub(crate) fn on(node: &'n Node) -> Result<Self> {
        let vhost = node.vhost()?;
        let user = format!("{}-user", vhost.name());
        let stage = Self { node, user, password: shared::message_id(), vhost };
        stage.set_password(&stage.password)?;
        stage.permit(".*", ".*", ".*")?;
        Ok(stage)
    }

    /// The same on the node that harmless rows share.
    pub(crate) fn new() -> Result<Self> {
        Self::on(broker::node())
    }

    /// Gives the user this password.
    pub(crate) fn set_password(&self, password: &str) -> Result<()> {
        let user = json!({"password": password, "tags": ""});
        self.node.put(&format!("/api/users/{}", self.user), &user).map(drop)
    }

    /// Lets the user configure, write and read what these patterns name.
    pub(crate) fn permit(&self, configure: &str, write: &str, read: &str) -> Result<()> {
        let rights = json!({"configure": configure, "write": write, "read": read});
        self.node.put(&self.permissions(), &rights).map(drop)
    }

    /// Where the management API keeps what the user may do.
    pub(crate) fn permissions(&self) -> String {
        format!("/api/permissions/{}/{}", self.vhost.name(), self.user)
    }

    /// Where to connect, password and all.
    pub(crate) fn url(&self) -> String {
        self.url_at(self.node.port())
    }

    /// The same at another port, as a relay's.
    pub(crate) fn url_at(&self, port: u16) -> String {
        format!("amqp://{}:{}@127.0.0.1:{port}/{}", self.user, self.password, self.vhost.name())
    }

    /// The same over TLS.
    pub(crate) fn tls_url_at(&self, port: u16) -> String {
        self.url_at(port).replacen("amqp://", "amqps://", 1)
    }

    /// A relay to the node.
    pub(crate) fn relay(&self) -> Result<Relay> {
        Relay::start(("127.0.0.1", self.node.port())).context("cannot start a relay")
    }

    /// The striker, as quick as it can, with a tally in JSON.
    pub(crate) fn striker(&self, url: &str, options: &[&str]) -> Program {
        let striker = Program::new(env!("CARGO_BIN_EXE_striker")).args(["--url", url, "--report", "json"]);
        striker.args(options).deadline(LIMIT)
    }

    /// The keeper, which prints a line for each message.
    pub(crate) fn keeper(&self, url: &str, options: &[&str]) -> Program {
        Program::new(env!("CARGO_BIN_EXE_keeper")).args(["--url", url]).args(options).deadline(LIMIT)
    }

    /// A keeper that consumes.
    pub(crate) fn start_keeper(&self, url: &str, options: &[&str]) -> Result<Watched> {
        Watched::start(self.keeper(url, options), LIMIT)
    }

    /// Asks the broker whether consumers, bindings, connections and channels are those of one keeper with
    /// this many workers, and of nobody else but a striker.
    pub(crate) fn expect_keeper(&self, workers: usize) -> Result<()> {
        let tags: BTreeSet<_> =
            (1..=workers).map(|worker| format!("casillas ({worker}/{workers})")).collect();
        eventually("the consumers and the binding that were configured, and no others", || {
            let consumers = self.vhost.consumers()?;
            let present: BTreeSet<_> = consumers
                .iter()
                .filter_map(|consumer| Some(consumer["consumer_tag"].as_str()?.to_owned()))
                .collect();
            let bindings = self.vhost.bindings()?;
            let bound: Vec<_> = bindings
                .iter()
                .filter(|binding| binding["source"] != "")
                .map(|binding| [&binding["source"], &binding["destination"], &binding["routing_key"]])
                .collect();
            Ok(consumers.len() == workers && present == tags && bound == [["penalty", "casillas", "spain"]])
        })
    }

    /// Waits for a program's end; neither a password nor a panic may be in what it printed.
    pub(crate) fn end(&self, program: &mut Running, code: i32) -> Result<End> {
        let end = program.wait(LIMIT).expect_code(code);
        self.check_output(&end)?;
        Ok(end)
    }

    /// Whether neither a password nor a panic is in what a program printed.
    pub(crate) fn check_output(&self, end: &End) -> Result<()> {
        for line in end.stdout.iter().chain(&end.stderr) {
            ensure!(!line.contains(&self.password), "the password shows: {line}");
            ensure!(!line.contains("panicked at"), "a panic: {end}");
        }
        Ok(())
    }

    /// The last line of a program that must have failed, which has to be one that says why.
    pub(crate) fn failure(&self, program: &mut Running) -> Result<String> {
        let end = self.end(program, 1)?;
        let errors: Vec<_> = end.stderr.iter().filter(|line| line.starts_with("error: ")).collect();
        ensure!(errors.len() == 1 && end.stderr.last() == Some(errors[0]), "not one line of error: {end}");
        Ok(errors[0].clone())
    }

    /// Runs a striker to its good end.
    pub(crate) fn run_striker(&self, url: &str, options: &[&str]) -> Result<Tally> {
        Tally::of(&self.end(&mut self.striker(url, options).start(), 0)?)
    }

    /// Waits for the striker's end and until the keeper has what was confirmed, stops the keeper, and checks
    /// that nothing is lost and both tell the same.
    pub(crate) fn finish(&self, row: &mut Row, striker: Running, keeper: Watched) -> Result<[Tally; 2]> {
        self.finish_within(LIMIT, row, striker, keeper)
    }

    /// The same with another limit for the striker's end.
    pub(crate) fn finish_within(
        &self,
        limit: Duration,
        row: &mut Row,
        mut striker: Running,
        keeper: Watched,
    ) -> Result<[Tally; 2]> {
        let end = striker.wait(limit).expect_code(0);
        self.check_output(&end)?;
        let striker = Tally::of(&end)?;
        let confirmed = striker.get("confirmed");
        // Nothing is given up while there is time without end.
        ensure!(striker.get("sent") == confirmed, "{striker:?}");
        keeper.catch.wait_for(confirmed, limit).with_context(|| format!("{striker:?}"))?;
        let distinct = keeper.catch.distinct();
        let keeper = self.stop_keeper(row, confirmed, keeper)?;
        ensure!(keeper.get("distinct") == confirmed && distinct == confirmed, "{striker:?} {keeper:?}");
        Ok([striker, keeper])
    }

    /// Waits until the queue is empty, stops the keeper, and checks that it has as many messages as were
    /// confirmed: of several strikers, some of which may have left others without an answer.
    pub(crate) fn drain(&self, row: &mut Row, confirmed: u64, keeper: Watched) -> Result<Tally> {
        // The broker's own count may be seconds old.
        keeper.catch.wait_for_lines(confirmed, LIMIT)?;
        eventually("an empty queue", || {
            Ok(self.vhost.queue("casillas")?.is_some_and(|queue| queue["messages"] == 0))
        })?;
        self.stop_keeper(row, confirmed, keeper)
    }

    fn stop_keeper(&self, row: &mut Row, confirmed: u64, keeper: Watched) -> Result<Tally> {
        let Watched { program: mut keeper, catch } = keeper;
        keeper.terminate();
        let tally = Tally::of(&self.end(&mut keeper, 0)?)?;
        row.count(confirmed, &tally, 0);
        ensure!(tally.get("distinct") >= confirmed && tally.get("missing") == 0, "{confirmed} {tally:?}");
        // Its own count and what it printed.
        ensure!(
            tally.get("distinct") + tally.get("duplicates") == catch.lines(),
            "{tally:?} {}",
            catch.lines()
        );
        ensure!(tally.get("acked") <= tally.get("received"), "{tally:?}");
        Ok(tally)
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        // A node that is dead or paused would be waited for.
        if broker::speaks_amqp(("127.0.0.1", self.node.port()), Duration::from_secs(1)) {
            let _ = self.node.delete(&format!("/api/users/{}", self.user));
        }
    }
}

/// How long after `since` something was; no time at all where it was before.
pub(crate) fn after(since: Instant, then: Instant) -> Duration {
    then.saturating_duration_since(since)
}
