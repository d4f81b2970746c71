//! The solution of an exercise in the page of `hello`: ten messages over one connection and one channel.
//!
//! Run it with `cargo run -p hello --example ten`.

use std::process::ExitCode;

use clap::Parser;
use shared::{Connection, ConnectionArgs, QueueType, message_id, say};

/// Send ten numbered messages to the queue hello
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let queue = args.connection.name(hello::QUEUE)?;
        let connection = Connection::open(&args.connection, "ten", &shutdown).await?;
        // begin ten
        let ids: Vec<_> = (0..10).map(|_| message_id()).collect();
        let send = connection.session(async |session| {
            hello::declare(&session.channel, &queue, QueueType::default()).await?;
            for (number, id) in (1..).zip(&ids) {
                hello::send(&session.channel, &queue, &format!("Hello {number}!"), id).await?;
            }
            Ok(())
        });
        send.await?;
        // end ten
        say!(" [x] Sent {} messages", ids.len());
        Ok(())
    })
}
