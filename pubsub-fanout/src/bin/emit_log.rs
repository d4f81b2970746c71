//! Publishes a log line to the exchange `logs`, for all who listen at that moment.
//!
//! Run it with `cargo run -p pubsub-fanout --bin emit_log A line of the log`, while a `receive_logs` runs
//! elsewhere.

use std::process::ExitCode;

use clap::Parser;
use shared::{Connection, ConnectionArgs, message_id, say, text};

/// Publish a log line to the exchange logs
#[derive(Parser)]
struct Args {
    /// The line's text [default: hello]
    words: Vec<String>,

    /// Fail if nobody listens, instead of letting the broker drop the line
    #[arg(long)]
    mandatory: bool,

    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let exchange = args.connection.name(pubsub_fanout::EXCHANGE)?;
        let body = text(&args.words);
        let connection = Connection::open(&args.connection, "emit_log", &shutdown).await?;
        // One id for all attempts: if the connection dies before the confirm, the line is sent again.
        let id = message_id();
        let emit = connection.session(async |session| {
            pubsub_fanout::declare(&session.channel, &exchange).await?;
            pubsub_fanout::emit(&session.channel, &exchange, &body, &id, args.mandatory).await
        });
        emit.await?;
        say!(" [x] Sent {body}");
        Ok(())
    })
}
