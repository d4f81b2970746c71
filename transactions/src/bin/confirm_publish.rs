//! Publishes messages with publisher confirms, some of them to nowhere if you like, says what became of
//! each, and consumes what arrived to see whether that is true.
//!
//! Run it with `cargo run -p transactions --bin confirm_publish -- --strategy windowed --unroutable-every 10`.

use std::num::NonZero;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::bail;
use clap::{Parser, ValueEnum};
use shared::{Connection, ConnectionArgs, QueueType, say};
use transactions::confirms::{self, Plan, Strategy};
use transactions::{Fate, Ledger, TrialQueue, arrivals, clean_up};

/// Publish messages with publisher confirms and say what became of each
#[derive(Parser)]
struct Args {
    /// How many messages to publish
    #[arg(long, value_name = "N", default_value = "1000")]
    messages: NonZero<usize>,

    /// When to wait for the confirms
    #[arg(long, value_enum, default_value_t = StrategyName::Windowed)]
    strategy: StrategyName,

    /// Messages in a batch, for --strategy batch
    #[arg(long, value_name = "N", default_value = "100")]
    batch: NonZero<usize>,

    /// Messages without a confirm at once, for --strategy windowed
    #[arg(long, value_name = "N", default_value = "128")]
    window: NonZero<usize>,

    /// Publish every K-th message with a routing key that leads to no queue
    #[arg(long, value_name = "K")]
    unroutable_every: Option<NonZero<usize>>,

    /// How many messages the queue takes before it refuses more; exact for a classic queue
    #[arg(long, value_name = "N")]
    queue_limit: Option<u32>,

    /// What the queue is declared as
    #[arg(long, value_enum, default_value_t = QueueType::Classic)]
    queue_type: QueueType,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum StrategyName {
    /// for each message before the next
    Each,
    /// for all of a batch before the next batch
    Batch,
    /// for the oldest one, once so many are missing
    Windowed,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let queue = TrialQueue::new(&args.connection, "confirms", args.queue_type)?;
        let queue = queue.with_limit(args.queue_limit);
        let connection = Connection::open(&args.connection, "confirm_publish", &shutdown).await?;
        let result = run(&args, &connection, &queue).await;
        clean_up(&connection, &[&queue]).await;
        result
    })
}

async fn run(args: &Args, connection: &Connection, queue: &TrialQueue) -> anyhow::Result<()> {
    let (strategy, pace) = match args.strategy {
        StrategyName::Each => (Strategy::Each, "each awaited before the next".to_owned()),
        StrategyName::Batch => (Strategy::Batch(args.batch), format!("awaited in batches of {}", args.batch)),
        StrategyName::Windowed => {
            (Strategy::Windowed(args.window), format!("at most {} without one", args.window))
        }
    };
    let plan = Plan { queue: queue.name.clone(), unroutable_every: args.unroutable_every, strategy };
    // Kept over lost connections: the next session goes on with the messages that were not sent yet.
    let mut ledger = Ledger::new(args.messages.get());
    let mut time = Duration::ZERO;
    let published = connection.session(async |session| {
        queue.declare(&session.channel).await?;
        if ledger.sent() == 0 {
            say!(" [*] Publishing {} messages with confirms, {pace}", args.messages);
        }
        let start = Instant::now();
        let published = confirms::publish_all(&session, &plan, &mut ledger).await;
        time += start.elapsed();
        published
    });
    let published = published.await;
    say!(" [.] Confirmed: {}", ledger.with(Fate::Confirmed).len());
    say!(" [.] Returned: {}", ledger.list(Fate::Returned));
    say!(" [.] Nacked: {}", ledger.list(Fate::Nacked));
    say!(" [.] Unknown: {}", ledger.list(Fate::Unknown));
    published?;

    let arrivals = arrivals::collect(connection, queue).await?;
    let unknown_arrived = ledger.compare(&arrivals)?;
    say!(" [.] Received: {}, every confirmed message once and no other", arrivals.len() - unknown_arrived);
    let unknown = ledger.with(Fate::Unknown).len();
    if unknown > 0 {
        say!(" [.] Received besides: {unknown_arrived} of the unknown ones");
    }
    say!(" [.] {:.0} messages per second", ledger.sent() as f64 / time.as_secs_f64());
    if unknown > 0 {
        bail!("{unknown} messages got no answer: they may or may not have arrived");
    }
    Ok(())
}
