//! How many messages a consumer gets ahead of its acknowledgements, and one that tolerates no other.
//!
//! Run it with `cargo run -p queue-lifecycle --bin consumers`.

use std::process::ExitCode;

use clap::Parser;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::{BasicProperties, Channel};
use queue_lifecycle::{Arguments, anonymous, consume, inspect, next, publish, refused};
use shared::{Connection, ConnectionArgs, Deadline, Result, say};

/// See how many messages a consumer is given at once
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let connection = Connection::open(&args.connection, "consumers", &shutdown).await?;
        let lesson = connection.session(async |session| {
            prefetch(&session.channel).await?;
            exclusive(&connection, &session.channel).await
        });
        lesson.await?;
        Ok(())
    })
}

/// The prefetch limits what is delivered and not yet acknowledged, so it limits nothing where nothing is
/// acknowledged.
async fn prefetch(channel: &Channel) -> Result<()> {
    let queue = &anonymous(channel, Arguments::default()).await?;
    for number in 1..=5 {
        publish(channel, "", queue, BasicProperties::default(), number.to_string().as_bytes()).await?;
    }
    say!(" [x] Publish five messages: {}", inspect(channel, queue).await?);

    // Counts for the consumers that this channel starts from now on, each by itself.
    channel.basic_qos(2, BasicQosOptions::default()).deadline("set QoS").await?;
    let mut consumer = consume(channel, queue, BasicConsumeOptions::default()).await?;
    say!(" [x] Consume with prefetch 2: {}", inspect(channel, queue).await?);

    let first = next(&mut consumer).await?;
    channel
        .basic_ack(first.delivery_tag, BasicAckOptions::default())
        .deadline("acknowledge a message")
        .await?;
    for _ in 0..2 {
        next(&mut consumer).await?;
    }
    say!(" [x] Acknowledge one: {}", inspect(channel, queue).await?);
    cancel(channel, consumer.tag().as_str()).await?;

    let automatic = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumer = consume(channel, queue, automatic).await?;
    say!(" [x] Consume with prefetch 2 and automatic acknowledgements: {}", inspect(channel, queue).await?);
    cancel(channel, consumer.tag().as_str()).await
}

/// An exclusive consumer keeps all others away from its queue.
async fn exclusive(connection: &Connection, channel: &Channel) -> Result<()> {
    let queue = &anonymous(channel, Arguments::default()).await?;
    let alone = BasicConsumeOptions { exclusive: true, ..BasicConsumeOptions::default() };
    let consumer = consume(channel, queue, alone).await?;
    say!(" [x] Consume exclusively: {}", inspect(channel, queue).await?);
    let second =
        || refused(connection, async |channel| consume(channel, queue, BasicConsumeOptions::default()).await);
    say!(" [x] Consume from another channel: {}", second().await?);
    cancel(channel, consumer.tag().as_str()).await
}

async fn cancel(channel: &Channel, tag: &str) -> Result<()> {
    channel.basic_cancel(tag.into(), BasicCancelOptions::default()).deadline("cancel the consumer").await
}
