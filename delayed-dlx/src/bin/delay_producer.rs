//! Sends orders that are cancelled if they are not paid in time.
//!
//! Run it with `cargo run -p delayed-dlx --bin delay_producer -- --delay 5s`, before or after
//! `cargo run -p delayed-dlx --bin delay_consumer`. With `--per-message` it shows how not to do it.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Parser;
use clap::builder::ArgPredicate;
use delayed_dlx::orders::{self, Order, Orders, WaitQueue};
use delayed_dlx::ttl;
use shared::{Connection, ConnectionArgs, QueueType, message_id, say};

/// Send orders that are cancelled if they are not paid in time
#[derive(Parser)]
struct Args {
    /// How long an order may stay unpaid; given several times, several orders are sent
    /// [with --per-message, the default is 5s and then 1s]
    #[arg(
        long,
        value_name = "TIME",
        value_delimiter = ',',
        default_value = "5s",
        default_value_if("per_message", ArgPredicate::Equals("true".into()), "5s,1s"),
        value_parser = ttl::parse
    )]
    delay: Vec<Duration>,

    /// A mistake to try: one wait queue for all delays, and a time to live on each message
    #[arg(long)]
    per_message: bool,

    /// What the queues are declared as; producer and consumer must agree
    #[arg(long, value_enum, default_value = "classic")]
    queue_type: QueueType,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let orders = Orders::new(&args.connection, args.queue_type)?;
        let connection = Connection::open(&args.connection, "delay_producer", &shutdown).await?;
        for (delay, number) in args.delay.iter().zip(1..) {
            let wait = match args.per_message {
                false => WaitQueue::of_delay(&args.connection, *delay)?,
                true => WaitQueue::of_all_delays(&args.connection)?,
            };
            let order = Order {
                text: format!("order {number}"),
                delay: *delay,
                at: SystemTime::now(),
                message_id: message_id(),
            };
            let send = connection.session(async |session| {
                orders.declare(&session.channel).await?;
                orders.declare_wait_queue(&session.channel, &wait).await?;
                orders::send(&session.channel, &wait, &order).await
            });
            send.await?;
            say!(" [x] Sent {}, to be paid within {}", order.text, humantime::format_duration(*delay));
        }
        Ok(())
    })
}
