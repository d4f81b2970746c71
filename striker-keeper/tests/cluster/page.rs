//! The page about clusters: its commands in its order, with the deaths that it tells of.

use anyhow::{Context, Result, bail, ensure};
use harness::{Program, Running};

use crate::steps::{self, Step, is_like};
use crate::support::{LIMIT, Tally, eventually};
use crate::{Cluster, Node, cluster, restart_the_dead};

const PAGE: &str = include_str!("../../../docs/cluster.md");

/// The page as far as it is played.
struct Stage<'c> {
    cluster: &'c Cluster,
    keeper: Option<Running>,
    striker: Option<Running>,
    played: usize,
}

impl Stage<'_> {
    fn play(&mut self, step: &Step) -> Result<()> {
        self.played += 1;
        let words: Vec<_> = step.words.iter().map(String::as_str).collect();
        match words[..] {
            // Its own tests start it, and compare what it prints.
            ["cargo", "run", "-p", "broker", "--", "--cluster", "3"] => Ok(()),
            ["cargo", "run", "-p", "striker-keeper", "--bin", "keeper", "--", ref options @ ..] => {
                self.stop()?;
                let mut keeper = self.start(env!("CARGO_BIN_EXE_keeper"), options);
                keeper.wait_for_error_line(|line| line.ends_with(": consuming"));
                self.keeper = Some(keeper);
                self.cluster.iter().try_for_each(Node::write_out)
            }
            ["cargo", "run", "-p", "striker-keeper", "--bin", "striker", "--", ref options @ ..] => {
                self.striker = Some(self.start(env!("CARGO_BIN_EXE_striker"), options));
                // A quiet one does not say when it is connected.
                eventually("both connected", || {
                    let connections = self.cluster[0].rabbitmqctl(&[
                        "-q",
                        "list_connections",
                        "pid",
                        "--no-table-headers",
                    ])?;
                    Ok(connections.lines().count() == 2)
                })?;
                // The page has no command for this one.
                if options.contains(&"classic-") { self.kill_the_home_of("classic-casillas") } else { Ok(()) }
            }
            // It has no such columns.
            ["rabbitmqctl", ..] if !self.cluster[0].is_from(3, 9)? => Ok(()),
            ["rabbitmqctl", ref words @ ..] => {
                let printed = self.cluster[0].rabbitmqctl(words)?;
                let lines: Vec<_> = printed.lines().collect();
                for expected in &step.output {
                    ensure!(lines.iter().any(|line| is_like(expected, line)), "{expected}\n{printed}");
                }
                Ok(())
            }
            ["kill", "-9", process] => {
                let introduced = format!("# rabbit1@localhost: port 5672, process {process}, ");
                ensure!(PAGE.contains(&introduced), "{process} is not the first node's");
                let leader = self.cluster.node_of("casillas")?;
                ensure!(leader.name() == "rabbit1@localhost", "{} leads", leader.name());
                leader.kill()?;
                let striker = self.striker.as_mut().context("no striker")?;
                for expected in text_after("A program that was connected") {
                    striker.wait_for_error_line(|line| without_numbers(line) == without_numbers(expected));
                }
                Ok(())
            }
            _ => bail!("nobody knows how to play this"),
        }
    }

    fn start(&self, path: &str, options: &[&str]) -> Running {
        Program::new(path).args(["--url", &self.cluster.url()]).args(options).start()
    }

    fn kill_the_home_of(&mut self, queue: &str) -> Result<()> {
        let home = self.cluster.node_of(queue)?;
        ensure!(home.name() == "rabbit1@localhost", "{} has it", home.name());
        home.kill()?;
        // From 4.0 on the others know it, and may not answer for a minute.
        if !self.cluster[1].is_from(4, 0)? {
            let keeper = self.keeper.as_mut().context("no keeper")?;
            for expected in text_after("a queue of which the others say") {
                keeper.wait_for_error_line(|line| line.contains(expected));
            }
        }
        Ok(())
    }

    /// Ctrl-C for both, once the dead are back; both had messages, and the striker knows what became of its own.
    fn stop(&mut self) -> Result<()> {
        restart_the_dead(self.cluster)?;
        let Some(mut striker) = self.striker.take() else { return Ok(()) };
        striker.interrupt();
        let striker = Tally::of(&striker.wait(LIMIT).expect_code(0))?;
        let mut keeper = self.keeper.take().context("no keeper")?;
        keeper.interrupt();
        let keeper = Tally::of(&keeper.wait(LIMIT).expect_code(0))?;
        // RabbitMQ 3.8 may never answer the message that was on its way to the dead leader.
        let unanswered = u64::from(!self.cluster[0].is_from(3, 9)?);
        ensure!(striker.get("confirmed") > 0 && striker.get("unknown") <= unanswered, "{striker:?}");
        ensure!(keeper.get("distinct") > 0, "{keeper:?}");
        Ok(())
    }
}

/// The lines of the next block of text in the page.
fn text_after(words: &str) -> impl Iterator<Item = &'static str> {
    let block = PAGE.split_once(words).and_then(|(_, rest)| rest.split_once("\n```text\n"));
    let block = block.and_then(|(_, rest)| rest.split_once("\n```")).expect(words).0;
    block.lines()
}

fn without_numbers(line: &str) -> String {
    line.chars().filter(|char| !char.is_ascii_digit()).collect()
}

#[test]
fn every_command_of_the_page_does_what_it_says() -> Result<()> {
    let cluster = cluster()?;
    let mut stage = Stage { cluster: &cluster, keeper: None, striker: None, played: 0 };
    for step in steps::of(PAGE) {
        stage.play(&step).with_context(|| step.words.join(" "))?;
    }
    stage.stop()?;
    ensure!(stage.played == 7, "{} commands, where there were seven", stage.played);
    Ok(())
}
