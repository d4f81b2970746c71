//! Cancels orders that were not paid in time, until Ctrl-C.
//!
//! Run it with `cargo run -p delayed-dlx --bin delay_consumer`, then
//! `cargo run -p delayed-dlx --bin delay_producer -- --delay 5s` elsewhere.

use std::process::ExitCode;
use std::sync::Once;
use std::time::{Duration, SystemTime};

use clap::Parser;
use delayed_dlx::orders::{Orders, Unpaid};
use delayed_dlx::x_death::XDeath;
use lapin::options::BasicAckOptions;
use shared::{Connection, ConnectionArgs, Deadline, QueueType, say};

/// Cancel orders that were not paid in time
#[derive(Parser)]
struct Args {
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
        let connection = Connection::open(&args.connection, "delay_consumer", &shutdown).await?;
        let waiting = Once::new();
        let cancel_orders = connection.session(async |session| {
            orders.declare(&session.channel).await?;
            let mut consumer = orders.consume(&session.channel).await?;
            waiting.call_once(|| say!(" [*] Waiting for unpaid orders. To exit press CTRL+C"));
            while let Some(delivery) = session.next(&mut consumer).await? {
                let unpaid = Unpaid::read(&delivery, SystemTime::now());
                say!(" [x] {} was not paid: cancelled, its stock put back", unpaid.text);
                say!(
                    "     asked for {}, came after {}",
                    milliseconds(unpaid.asked),
                    milliseconds(unpaid.passed)
                );
                for death in XDeath::of(&delivery.properties).deaths {
                    say!("     x-death: {death}");
                }
                // Only now: an order whose consumer dies in the middle goes to another consumer.
                let ack = session.channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
                ack.deadline("acknowledge an order").await?;
            }
            Ok(())
        });
        cancel_orders.await?;
        Ok(())
    })
}

fn milliseconds(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "an unknown time".to_owned(), |duration| format!("{} ms", duration.as_millis()))
}
