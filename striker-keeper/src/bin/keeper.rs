//! Catches the striker's messages from the queue `casillas`, comes back whenever the broker does, and ends
//! with a tally.
//!
//! Run it with `cargo run -p striker-keeper --bin keeper`, then
//! `cargo run -p striker-keeper --bin striker` elsewhere.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use shared::{Connection, ConnectionArgs, Consumer, QueueType};
use striker_keeper::catches::Catcher;
use striker_keeper::report::ReportArgs;
use striker_keeper::tally::KeeperTally;
use striker_keeper::{QUEUE, keeper_topology, outages, progress};

/// Catch messages from the queue `casillas`
#[derive(Parser)]
struct Args {
    /// Stop after so many messages, each counted once, and what the broker had sent ahead by then; without it, run until
    /// Ctrl-C
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// How many messages are handled at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,

    /// How many unacknowledged messages each worker may hold
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    prefetch: u16,

    /// How long a message takes
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    work: Duration,

    /// What the queue is declared as
    #[arg(long, value_enum, default_value_t)]
    queue_type: QueueType,

    /// Declare a classic queue with x-queue-mode=lazy, which has no effect since RabbitMQ 3.12
    #[arg(long)]
    lazy: bool,

    #[command(flatten)]
    report: ReportArgs,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let topology = keeper_topology(&args.connection, args.queue_type, args.lazy)?;
        if args.lazy {
            tracing::warn!("x-queue-mode=lazy: RabbitMQ 3.12 and later accept it without any effect");
        }
        let connection = Connection::open(&args.connection, "keeper", &shutdown).await?;
        let outages = outages::watch(&connection);
        topology.declare(&connection).await?;
        args.report.line("running keeper ...");
        let consumer = Consumer::new(QUEUE, args.connection.name(QUEUE)?)
            .with_workers(args.workers)
            .with_prefetch(args.prefetch)
            .with_topology(topology);
        let catcher = Arc::new(Catcher::new(args.work, args.count, args.report, &shutdown));
        let catching = catcher.clone();
        let catch =
            consumer.run(&connection, move |worker, delivery| catching.clone().catch(worker, delivery));
        let caught = || consumer.tally().received;
        let result = progress::during(args.report.progress(), "keeper", caught, catch).await;
        let tally = KeeperTally::new(consumer.tally(), &catcher.seen(), outages());
        args.report.tally(&tally, &tally.json());
        Ok(result?)
    })
}
