//! The solution of an exercise in the page of `pubsub-fanout`: a receiver that misses nothing while it is away.
//!
//! Run it with `cargo run -p pubsub-fanout --example archive_logs`.

use std::process::ExitCode;
use std::sync::Once;

use clap::Parser;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::{FieldTable, ShortString};
use shared::{Connection, ConnectionArgs, Deadline, QueueType, say};

/// Print every log line that was published to the exchange logs since the first run
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let exchange = args.connection.name(pubsub_fanout::EXCHANGE)?;
        let queue = ShortString::from(args.connection.name("archive")?);
        let connection = Connection::open(&args.connection, "archive_logs", &shutdown).await?;
        let waiting = Once::new();
        let receive = connection.session(async |session| {
            let channel = &session.channel;
            pubsub_fanout::declare(channel, &exchange).await?;
            // begin archive
            // It keeps on disk what the publisher did not mark as persistent, too.
            let kind = QueueType::Quorum;
            let declared = channel.queue_declare(queue.clone(), kind.options(), kind.arguments());
            declared.deadline("declare a queue").await?;
            pubsub_fanout::bind(channel, &queue, &exchange).await?;
            let options = BasicConsumeOptions::default();
            let consumer = channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default());
            let mut consumer = consumer.deadline("register a consumer").await?;
            waiting.call_once(|| say!(" [*] Waiting for logs. To exit press CTRL+C"));
            while let Some(delivery) = session.next(&mut consumer).await? {
                say!(" [x] {}", String::from_utf8_lossy(&delivery.data));
                let acknowledged = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
                acknowledged.deadline("acknowledge a line").await?;
            }
            // end archive
            Ok(())
        });
        receive.await?;
        Ok(())
    })
}
