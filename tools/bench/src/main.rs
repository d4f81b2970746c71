//! What the workspace's ways to publish and consume cost, beside lapin used plainly, on a broker of yours.
//!
//! Run it with `cargo run --release -p bench`.

mod contestant;
mod echo;
mod flow;
mod ours;
mod plainly;
mod programs;
mod recovery;
mod report;
mod seen;
mod table;
mod turn;
mod workload;

use std::env;
use std::num::NonZero;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use broker::Node;
use clap::{Parser, Subcommand};
use shared::{Connection, ConnectionArgs, Shutdown, say};

use crate::contestant::{Contestant, NOT_DONE, Peer};
use crate::table::{Run, table};
use crate::turn::Referee;
use crate::workload::Workload;

/// Measure what publishing and consuming cost: `shared` beside lapin used plainly
#[derive(Parser)]
struct Args {
    /// Only this workload, or all those whose names begin with it if it ends in '-'; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,

    /// How often each has its turn
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: NonZero<usize>,

    /// Messages in a run, instead of each workload's own number
    #[arg(long, value_name = "N")]
    messages: Option<NonZero<usize>>,

    /// How often the connections are reset
    #[arg(long, value_name = "N", default_value_t = 100)]
    resets: usize,

    /// How often the broker is killed and started again
    #[arg(long, value_name = "N", default_value_t = 10)]
    restarts: usize,

    /// Messages during which the memory of a keeper is watched
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    watched: usize,

    /// Another client to measure: a name, and a command that is run with a workload, a number of messages and
    /// a queue, and AMQP_URL set; may be given several times
    #[arg(long, value_name = "NAME=COMMAND")]
    peer: Vec<Peer>,

    #[command(subcommand)]
    part: Option<Part>,
}

/// What the program starts itself for.
#[derive(Subcommand)]
enum Part {
    /// One contestant's run; prints a line of JSON
    #[command(hide = true)]
    Run { contestant: String, workload: String, messages: usize, queue: String },
    /// The server that the contestants ask
    #[command(hide = true)]
    Echo { queue: String },
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    match args.part {
        Some(Part::Run { contestant, workload, messages, queue }) => match &*contestant {
            // As every program on `shared` runs: on one thread.
            "shared" => shared::run(async |shutdown| {
                if workload == FLOW {
                    return flow::ours(&ConnectionArgs::for_url(url()?), &queue, &shutdown).await;
                }
                let workload = workload.parse().map_err(anyhow::Error::msg)?;
                let args = ConnectionArgs::for_url(url()?);
                say!("{}", ours::run(&args, workload, messages, &queue).await?.json());
                Ok(())
            }),
            // As `#[tokio::main]` runs them.
            _ => plain(async || {
                match &*workload {
                    "one-shot" => {
                        return plainly::send_one(&url()?, &queue).await.map(|()| ExitCode::SUCCESS);
                    }
                    FLOW => return flow::plain(&url()?, &queue).await.map(|never| match never {}),
                    _ => {}
                }
                let workload = workload.parse().map_err(anyhow::Error::msg)?;
                match plainly::run(&url()?, workload, messages, &queue).await? {
                    Some(report) => say!("{}", report.json()),
                    None => return Ok(NOT_DONE.into()),
                }
                Ok(ExitCode::SUCCESS)
            }),
        },
        Some(Part::Echo { queue }) => shared::run(async |_| echo::serve(&url()?, &queue).await),
        None => shared::run(async |shutdown| bench(&args, &shutdown).await),
    }
}

/// Runs a program as one without this workspace's help would be.
fn plain(program: impl AsyncFnOnce() -> Result<ExitCode>) -> ExitCode {
    let done =
        tokio::runtime::Runtime::new().context("no runtime").and_then(|runtime| runtime.block_on(program()));
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn url() -> Result<String> {
    env::var("AMQP_URL").context("AMQP_URL is not set")
}

/// What is measured besides the workloads.
const OTHERS: [&str; 4] = ["start", "memory", "reset", "restart"];

/// The workload that ends only with its process.
const FLOW: &str = "flow";

async fn bench(args: &Args, shutdown: &Shutdown) -> Result<()> {
    let workloads: Vec<_> =
        Workload::ALL.into_iter().filter(|workload| args.wants(&workload.to_string())).collect();
    let others: Vec<_> = OTHERS.into_iter().filter(|other| args.wants(other)).collect();
    if workloads.is_empty() && others.is_empty() {
        let names: Vec<_> = Workload::ALL.iter().map(ToString::to_string).collect();
        bail!("nothing to do: there are {}, {}", names.join(", "), OTHERS.join(", "));
    }
    let node = match url() {
        Ok(_) => None,
        Err(_) => Some(tokio::task::spawn_blocking(Node::start).await??),
    };
    let url = node.as_ref().map_or_else(url, |node| Ok(node.url()))?;
    let connection_args = ConnectionArgs::for_url(&url);
    let connection = Connection::open(&connection_args, "bench", shutdown).await?;
    let referee = Referee { url, args: connection_args, connection };
    let mut contestants = vec![Contestant::Shared, Contestant::Lapin];
    contestants.extend(args.peer.iter().cloned().map(Contestant::Peer));
    let mut runs = Vec::new();
    for round in 1..=args.rounds.get() {
        for workload in &workloads {
            // Each is first, second and so on in turn.
            for place in 0..contestants.len() {
                let contestant = &contestants[(place + round) % contestants.len()];
                let messages = args.messages.map_or(workload.messages(), NonZero::get);
                if let Some(turn) = referee.turn(contestant, *workload, messages).await? {
                    let (workload, contestant) = (workload.to_string(), contestant.to_string());
                    let run = Run { workload, contestant, round, messages, turn };
                    say!("{}", run.json());
                    runs.push(run);
                }
            }
        }
    }
    runs.sort_by_key(|run| {
        contestants.iter().position(|contestant| contestant.to_string() == run.contestant)
    });
    let url = referee.url;
    let (resets, restarts, messages) = (args.resets, args.restarts, args.watched);
    let tables = tokio::task::spawn_blocking(move || -> Result<Vec<String>> {
        let (mut lines, mut recoveries) = (Vec::new(), Vec::new());
        for other in others {
            match (other, &node) {
                ("start", _) => lines.extend(programs::starts(&url, &contestants)?),
                ("memory", _) => lines.extend(programs::memory(&url, messages)?),
                ("reset", Some(node)) => recoveries.extend(recovery::resets(node, resets)?),
                ("restart", Some(node)) => recoveries.extend(recovery::restarts(node, restarts)?),
                _ => say!("{other}: left out, because AMQP_URL names a broker, which may be somebody else's"),
            }
        }
        let mut tables = Vec::new();
        if !lines.is_empty() {
            tables.push(programs::table(&lines));
        }
        if !recoveries.is_empty() {
            tables.push(recovery::table(&recoveries));
        }
        Ok(tables)
    });
    let others = tables.await?;
    if !runs.is_empty() {
        say!("\n{}", table(&runs));
    }
    for table in others? {
        say!("\n{table}");
    }
    let faulty = runs.iter().filter(|run| !run.turn.faults.is_none()).count();
    if faulty > 0 {
        bail!("{faulty} runs lost or doubled messages: their rates are worth nothing");
    }
    Ok(())
}

impl Args {
    fn wants(&self, name: &str) -> bool {
        let picks = |only: &String| name == only || only.ends_with('-') && name.starts_with(only.as_str());
        self.only.is_empty() || self.only.iter().any(picks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_picks_one_and_a_beginning_all_that_have_it() {
        let args = Args::parse_from(["bench", "--only", "consume-1", "--only", "rpc-"]);
        assert!(args.wants("consume-1") && args.wants("rpc-1") && args.wants("rpc-50"));
        assert!(!args.wants("consume-100") && !args.wants("consume-") && !args.wants("pairs"));
        assert!(Args::parse_from(["bench"]).wants("pairs"));
    }
}
