//! Sends `Hello World!` to the queue `hello`.
//!
//! Run it with `cargo run -p hello --bin sender`, before or after `cargo run -p hello --bin receiver`.

use std::process::ExitCode;

use clap::Parser;
use shared::{Connection, ConnectionArgs, QueueType, message_id, say};

/// Send Hello World! to the queue hello
#[derive(Parser)]
struct Args {
    /// What the queue is declared as; sender and receiver must agree
    #[arg(long, value_enum, default_value_t)]
    queue_type: QueueType,

    #[command(flatten)]
    connection: ConnectionArgs,
}

const BODY: &str = "Hello World!";

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let queue = args.connection.name(hello::QUEUE)?;
        let connection = Connection::open(&args.connection, "sender", &shutdown).await?;
        // One id for all attempts: if the connection dies before the confirm, the message is sent again.
        let id = message_id();
        let send = connection.session(async |session| {
            hello::declare(&session.channel, &queue, args.queue_type).await?;
            hello::send(&session.channel, &queue, BODY, &id).await
        });
        send.await?;
        say!(" [x] Sent {BODY}");
        Ok(())
    })
}
