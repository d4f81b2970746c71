//! A contestant's turn: the queue is made ready, the work done, and every message counted.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::{env, mem};

use anyhow::{Context, Result, ensure};
use shared::{Connection, ConnectionArgs, Publisher, QueueType};
use transactions::{TrialQueue, arrivals};

use crate::contestant::Contestant;
use crate::echo;
use crate::report::Report;
use crate::seen::{Faults, Seen};
use crate::workload::{PAIRS, Workload, body, pair_queue};

/// How many messages are put into a queue at once.
const BATCH: usize = 1000;

/// Whoever runs the contestants, and counts.
pub(crate) struct Referee {
    pub(crate) url: String,
    pub(crate) args: ConnectionArgs,
    pub(crate) connection: Connection,
}

/// What a turn has shown.
pub(crate) struct Turn {
    pub(crate) report: Report,
    pub(crate) faults: Faults,
}

impl Referee {
    /// Lets a contestant do a workload. `None`: it does not do this one.
    pub(crate) async fn turn(
        &self,
        contestant: &Contestant,
        workload: Workload,
        messages: usize,
    ) -> Result<Option<Turn>> {
        let queue = TrialQueue::new(&self.args, "bench", QueueType::Classic)?;
        let queues: Vec<_> = match workload {
            Workload::Pairs => (0..PAIRS)
                .map(|pair| TrialQueue { name: pair_queue(&queue.name, pair), ..queue.clone() })
                .collect(),
            _ => vec![queue.clone()],
        };
        for queue in &queues {
            self.connection.session(async |session| queue.declare(&session.channel).await).await?;
        }
        let turn = self.played(contestant, workload, messages, &queue, &queues).await;
        for queue in &queues {
            self.connection.session(async |session| queue.delete(&session.channel).await).await?;
        }
        turn
    }

    async fn played(
        &self,
        contestant: &Contestant,
        workload: Workload,
        messages: usize,
        queue: &TrialQueue,
        queues: &[TrialQueue],
    ) -> Result<Option<Turn>> {
        if workload.consumes() {
            self.fill(workload, queue, messages).await?;
        }
        let server = match workload {
            Workload::Rpc(_) => Some(Server::start(&self.url, &queue.name)?),
            _ => None,
        };
        let (run, url, name) = (contestant.clone(), self.url.clone(), queue.name.clone());
        let report = tokio::task::spawn_blocking(move || run.run(&url, workload, messages, &name)).await??;
        drop(server);
        let Some(report) = report else { return Ok(None) };
        let mut left = Seen::new(messages);
        for queue in queues {
            for (id, copies) in arrivals::collect(&self.connection, queue).await? {
                (0..copies).for_each(|_| left.note(id.parse().ok()));
            }
        }
        let faults = match workload {
            Workload::Consume(_) | Workload::AckEvery | Workload::Rpc(_) | Workload::Pairs => {
                // What is still there was not acknowledged.
                let Faults { foreign, .. } = left.faults(|_| false);
                let lost = messages.saturating_sub(report.distinct);
                Faults { lost, doubled: report.doubled, foreign }
            }
            _ => left.faults(|number| !workload.is_unroutable(number)),
        };
        Ok(Some(Turn { report, faults }))
    }

    /// Puts numbered messages into a queue.
    async fn fill(&self, workload: Workload, queue: &TrialQueue, messages: usize) -> Result<()> {
        let publisher = Publisher::new(&self.connection, 1);
        for first in (0..messages).step_by(BATCH) {
            let bodies: Vec<_> =
                (first..messages.min(first + BATCH)).map(|number| (number, body(number))).collect();
            let message = |(number, body)| workload.message(&queue.name, body, number);
            let batch: Vec<_> = bodies.iter().map(|(number, body)| message((*number, body))).collect();
            for outcome in publisher.publish_batch(&batch).await {
                ensure!(
                    matches!(outcome, shared::Outcome::Confirmed),
                    "the queue cannot be filled: {outcome:?}"
                );
            }
        }
        Ok(())
    }
}

/// The process that answers questions; it ends with its standard input.
struct Server(Child);

impl Server {
    fn start(url: &str, queue: &str) -> Result<Self> {
        let mut command = Command::new(env::current_exe().context("cannot find this program")?);
        command.args(["echo", queue]).env("AMQP_URL", url);
        let mut server = Self(
            command
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start the server")?,
        );
        let mut line = String::new();
        let output = server.0.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.trim_end() == echo::READY, "the server did not start: '{line}'");
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(mem::take(&mut self.0.stdin));
        let _ = self.0.wait();
    }
}
