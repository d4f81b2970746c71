//! Prints every log line that is published to the exchange `logs` from now on, until Ctrl-C.
//!
//! Run it with `cargo run -p pubsub-fanout --bin receive_logs`, in two terminals to see both get every line,
//! then `cargo run -p pubsub-fanout --bin emit_log A line of the log` elsewhere.

use std::process::ExitCode;
use std::sync::Once;

use clap::Parser;
use shared::{Connection, ConnectionArgs, say};

/// Print every log line that is published to the exchange logs
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let exchange = args.connection.name(pubsub_fanout::EXCHANGE)?;
        let connection = Connection::open(&args.connection, "receive_logs", &shutdown).await?;
        let waiting = Once::new();
        let receive = connection.session(async |session| {
            let channel = &session.channel;
            pubsub_fanout::declare(channel, &exchange).await?;
            let queue = pubsub_fanout::declare_queue(channel).await?;
            pubsub_fanout::bind(channel, &queue, &exchange).await?;
            let mut consumer = pubsub_fanout::consume(channel, &queue).await?;
            tracing::debug!("consuming from the queue {queue}");
            waiting.call_once(|| say!(" [*] Waiting for logs. To exit press CTRL+C"));
            while let Some(delivery) = session.next(&mut consumer).await? {
                say!(" [x] {}", String::from_utf8_lossy(&delivery.data));
            }
            Ok(())
        });
        receive.await?;
        Ok(())
    })
}
