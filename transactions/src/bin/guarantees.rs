//! Publishes the same messages with five guarantees, takes the time of each, and says what it is worth.
//!
//! Run it with `cargo run --release -p transactions --bin guarantees`.

use std::num::NonZero;
use std::process::ExitCode;

use clap::Parser;
use shared::{Connection, ConnectionArgs, QueueType, say};
use transactions::TrialQueue;
use transactions::guarantees::Guarantee;

/// Publish the same messages with five guarantees and take the time
#[derive(Parser)]
struct Args {
    /// How many messages to publish in each way
    #[arg(long, value_name = "N", default_value = "2000")]
    messages: NonZero<usize>,

    /// Messages in a transaction, where there is more than one in it
    #[arg(long, value_name = "N", default_value = "100")]
    batch: NonZero<usize>,

    /// Messages without a confirm at once, where there is more than one
    #[arg(long, value_name = "N", default_value = "1000")]
    window: NonZero<usize>,

    /// What the queue is declared as
    #[arg(long, value_enum, default_value_t = QueueType::Classic)]
    queue_type: QueueType,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let model = TrialQueue::new(&args.connection, "guarantees", args.queue_type)?;
        let connection = Connection::open(&args.connection, "guarantees", &shutdown).await?;
        let guarantees = [
            Guarantee::None,
            Guarantee::TxEach,
            Guarantee::TxBatch(args.batch),
            Guarantee::ConfirmEach,
            Guarantee::ConfirmWindow(args.window),
        ];
        let messages = args.messages.get();
        say!(" [*] Publishing {messages} persistent messages in each way");
        say!("{:<24} {:>10} {:>14}", "guarantee", "messages/s", "received");
        // Not counted: the broker is slower with the first messages of a connection than with the rest.
        Guarantee::None.measure(&connection, &model, messages).await?;
        for guarantee in guarantees {
            let measured = guarantee.measure(&connection, &model, messages).await?;
            let rate = messages as f64 / measured.time.as_secs_f64();
            let received = format!("{} of {messages}", measured.arrivals.len());
            say!("{:<24} {rate:>10.0} {received:>14}", guarantee.name());
        }
        for guarantee in guarantees {
            say!("");
            say!("{}", guarantee.name());
            say!("  promises  {}", guarantee.promises());
            say!("  does not  {}", guarantee.does_not());
        }
        Ok(())
    })
}
