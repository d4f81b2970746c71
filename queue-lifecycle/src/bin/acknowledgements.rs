//! What happens to messages that are acknowledged, given back, rejected, or none of these.
//!
//! Run it with `cargo run -p queue-lifecycle --bin acknowledgements`.

use std::process::ExitCode;

use clap::Parser;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicRejectOptions};
use lapin::{BasicProperties, Channel};
use queue_lifecycle::{Arguments, anonymous, consume, inspect, next, publish, refused};
use shared::{Connection, ConnectionArgs, Deadline, Result, say};

/// Acknowledge messages, give them back, reject them, and forget to
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

const MANUAL: BasicConsumeOptions =
    BasicConsumeOptions { no_local: false, no_ack: false, exclusive: false, nowait: false };
const AUTOMATIC: BasicConsumeOptions = BasicConsumeOptions { no_ack: true, ..MANUAL };
const ONE: BasicAckOptions = BasicAckOptions { multiple: false };

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let connection = Connection::open(&args.connection, "acknowledgements", &shutdown).await?;
        let lesson = connection.session(async |session| {
            answers(&connection, &session.channel).await?;
            mistakes(&connection, &session.channel).await
        });
        lesson.await?;
        Ok(())
    })
}

/// What a consumer can answer, and what becomes of a message that it never answered.
async fn answers(connection: &Connection, channel: &Channel) -> Result<()> {
    let queue = &anonymous(channel, Arguments::default()).await?;
    for body in ["one", "two", "three"] {
        publish(channel, "", queue, BasicProperties::default(), body.as_bytes()).await?;
    }
    let first = connection.session(async |session| {
        let channel = &session.channel;
        let mut consumer = consume(channel, queue, MANUAL).await?;
        say!(" [x] Receive {}", in_words(&next(&mut consumer).await?));
        let two = next(&mut consumer).await?;
        say!(" [x] Receive {}", in_words(&two));
        say!(" [x] Receive {}", in_words(&next(&mut consumer).await?));

        let so_far = BasicAckOptions { multiple: true };
        channel.basic_ack(two.delivery_tag, so_far).deadline("acknowledge messages").await?;
        say!(" [x] Acknowledge two and all before it");
        channel.close(200, "OK".into()).deadline("close a channel").await
    });
    first.await?;
    say!(" [x] Close the channel: {}", inspect(channel, queue).await?);

    let mut consumer = consume(channel, queue, MANUAL).await?;
    let three = next(&mut consumer).await?;
    say!(" [x] Receive {}", in_words(&three));
    let requeue = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    channel.basic_nack(three.delivery_tag, requeue).deadline("give a message back").await?;
    let three = next(&mut consumer).await?;
    say!(" [x] Give it back (nack, requeue) and receive {}", in_words(&three));

    let for_good = BasicRejectOptions { requeue: false };
    channel.basic_reject(three.delivery_tag, for_good).deadline("reject a message").await?;
    say!(" [x] Reject it, without requeue: {}", inspect(channel, queue).await?);
    Ok(())
}

/// An acknowledgement has no answer. If it is wrong the broker closes the channel, and the consumer hears it.
async fn mistakes(connection: &Connection, channel: &Channel) -> Result<()> {
    let queue = &anonymous(channel, Arguments::default()).await?;
    for (what, options, acknowledgements) in
        [("Acknowledge twice", MANUAL, 2), ("Acknowledge what was acknowledged automatically", AUTOMATIC, 1)]
    {
        publish(channel, "", queue, BasicProperties::default(), b"four").await?;
        let refusal = refused(connection, async |channel| {
            let mut consumer = consume(channel, queue, options).await?;
            let delivery = next(&mut consumer).await?;
            for _ in 0..acknowledgements {
                channel.basic_ack(delivery.delivery_tag, ONE).deadline("acknowledge a message").await?;
            }
            next(&mut consumer).await
        });
        say!(" [x] {what}: {}", refusal.await?);
    }
    Ok(())
}

fn in_words(delivery: &Delivery) -> String {
    let body = String::from_utf8_lossy(&delivery.data);
    format!("{body}: delivery tag {}, redelivered {}", delivery.delivery_tag, delivery.redelivered)
}
