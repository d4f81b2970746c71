//! Prints every message that comes to the queue `hello`, until Ctrl-C.
//!
//! Run it with `cargo run -p hello --bin receiver`, then `cargo run -p hello --bin sender` elsewhere.

use std::process::ExitCode;
use std::sync::Once;

use clap::Parser;
use shared::{Connection, ConnectionArgs, QueueType, say};

/// Print every message that comes to the queue hello
#[derive(Parser)]
struct Args {
    /// What the queue is declared as; sender and receiver must agree
    #[arg(long, value_enum, default_value_t)]
    queue_type: QueueType,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let queue = args.connection.name(hello::QUEUE)?;
        let connection = Connection::open(&args.connection, "receiver", &shutdown).await?;
        let waiting = Once::new();
        let receive = connection.session(async |session| {
            hello::declare(&session.channel, &queue, args.queue_type).await?;
            let mut consumer = hello::consume(&session.channel, &queue).await?;
            waiting.call_once(|| say!(" [*] Waiting for messages. To exit press CTRL+C"));
            while let Some(delivery) = session.next(&mut consumer).await? {
                say!("Received a message: {}", String::from_utf8_lossy(&delivery.data));
            }
            Ok(())
        });
        receive.await?;
        Ok(())
    })
}
