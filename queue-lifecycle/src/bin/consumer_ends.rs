//! The ways in which a consumer's stream of messages ends.
//!
//! Run it with `cargo run -p queue-lifecycle --bin consumer_ends`.

use std::process::ExitCode;

use clap::Parser;
use futures_lite::StreamExt;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, QueueDeleteOptions};
use lapin::{Channel, Consumer};
use queue_lifecycle::{Arguments, anonymous, consume, delete};
use shared::{CALL_DEADLINE, Connection, ConnectionArgs, Deadline, Error, Result, Shutdown, say};
use tokio::time::timeout;

/// See what a consumer's stream says when it ends
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let connection = Connection::open(&args.connection, "consumer_ends", &shutdown).await?;
        connection.session(async |session| cancelled(&session.channel).await).await?;
        connection.session(async |session| queue_deleted(&session.channel).await).await?;
        connection.session(async |session| channel_closed(&session.channel).await).await?;
        connection.session(async |session| exception(&session.channel).await).await?;

        let closing = Shutdown::new();
        let connection = Connection::open(&args.connection, "consumer_ends closing", &closing).await?;
        connection.session(async |session| connection_closed(&session.channel, &closing).await).await?;
        Ok(())
    })
}

async fn cancelled(channel: &Channel) -> Result<()> {
    let mut consumer = start(channel).await?;
    let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    cancel.deadline("cancel the consumer").await?;
    say!(" [x] Cancel the consumer: {}", end(&mut consumer).await?);
    Ok(())
}

/// The broker cancels the consumer. The channel lives on.
async fn queue_deleted(channel: &Channel) -> Result<()> {
    let mut consumer = start(channel).await?;
    delete(channel, consumer.queue().as_str(), QueueDeleteOptions::default()).await?;
    say!(" [x] Delete the queue: {}", end(&mut consumer).await?);
    Ok(())
}

async fn channel_closed(channel: &Channel) -> Result<()> {
    let mut consumer = start(channel).await?;
    channel.close(200, "OK".into()).deadline("close a channel").await?;
    say!(" [x] Close the channel: {}", end(&mut consumer).await?);
    Ok(())
}

/// A mistake on the channel, here an acknowledgement of nothing: the broker closes it.
async fn exception(channel: &Channel) -> Result<()> {
    let mut consumer = start(channel).await?;
    channel.basic_ack(1, BasicAckOptions::default()).deadline("acknowledge a message").await?;
    say!(" [x] Make a mistake on the channel: {}", end(&mut consumer).await?);
    Ok(())
}

async fn connection_closed(channel: &Channel, closing: &Shutdown) -> Result<()> {
    let mut consumer = start(channel).await?;
    closing.close_connections().await;
    say!(" [x] Close the connection: {}", end(&mut consumer).await?);
    Ok(())
}

async fn start(channel: &Channel) -> Result<Consumer> {
    let queue = anonymous(channel, Arguments::default()).await?;
    consume(channel, &queue, BasicConsumeOptions::default()).await
}

/// Reads the stream to its end and says what was in it.
async fn end(consumer: &mut Consumer) -> Result<String> {
    let read = async {
        let mut words = String::new();
        while let Some(item) = consumer.next().await {
            words += &match item {
                Ok(delivery) => format!("message {}, ", delivery.delivery_tag),
                Err(cause) => format!("{}, ", Error::Refused { step: "receive", cause }),
            };
        }
        words + "the stream ends"
    };
    timeout(CALL_DEADLINE, read).await.map_err(|_| Error::own("the stream does not end"))
}
