//! Queues with limits: how many messages, how many bytes, how long.
//!
//! Run it with `cargo run -p queue-lifecycle --bin limits`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lapin::types::AMQPValue;
use lapin::{BasicProperties, Channel};
use queue_lifecycle::{Arguments, Overflow, anonymous, bodies, drain, inspect, publish, refused};
use shared::{CALL_DEADLINE, Connection, ConnectionArgs, Error, Result, say};
use tokio::time::{Instant, sleep};

/// See what queues do at their limits
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let connection = Connection::open(&args.connection, "limits", &shutdown).await?;
        let lesson = connection.session(async |session| {
            length(&session.channel).await?;
            time(&session.channel).await?;
            mistakes(&connection, &session.channel).await
        });
        lesson.await?;
        Ok(())
    })
}

/// What happens to the message that is one too many.
async fn length(channel: &Channel) -> Result<()> {
    for (what, arguments) in [
        ("x-max-length 2", Arguments::default().max_length(2)),
        ("x-max-length-bytes 8", Arguments::default().max_length_bytes(8)),
        (
            "x-max-length 2 and x-overflow reject-publish",
            Arguments::default().max_length(2).overflow(Overflow::RejectPublish),
        ),
    ] {
        let queue = &anonymous(channel, arguments).await?;
        say!(" [x] Declare a queue with {what}");
        for body in ["one", "two", "three"] {
            match publish(channel, "", queue, BasicProperties::default(), body.as_bytes()).await {
                Ok(()) => say!(" [x] Send {body}: confirmed"),
                Err(Error::Nacked) => say!(" [x] Send {body}: refused (nack)"),
                Err(error) => return Err(error),
            }
        }
        say!(" [x] Receive what is left: {}", bodies(&drain(channel, queue).await?));
    }
    Ok(())
}

/// A queue's limit and a message's own: the smaller one counts. In milliseconds.
async fn time(channel: &Channel) -> Result<()> {
    for (ttl, expiration) in
        [(Some(100), None), (None, Some(100)), (Some(100), Some(60_000)), (Some(60_000), Some(100))]
    {
        let (mut arguments, mut properties) = (Arguments::default(), BasicProperties::default());
        let mut limits = Vec::new();
        if let Some(ttl) = ttl {
            arguments = arguments.message_ttl(Duration::from_millis(ttl));
            limits.push(format!("x-message-ttl {ttl}"));
        }
        if let Some(expiration) = expiration {
            properties = properties.with_expiration(expiration.to_string().into());
            limits.push(format!("expiration {expiration}"));
        }
        let queue = &anonymous(channel, arguments).await?;
        publish(channel, "", queue, properties, b"soon gone").await?;
        until_empty(channel, queue).await?;
        say!(" [x] Send with {}: gone after a moment", limits.join(" and "));
    }
    Ok(())
}

/// Waits for a queue that nobody consumes to become empty.
async fn until_empty(channel: &Channel, queue: &str) -> Result<()> {
    let end = Instant::now() + CALL_DEADLINE;
    while inspect(channel, queue).await?.ready > 0 {
        if Instant::now() > end {
            return Err(Error::own("the message does not expire"));
        }
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// Arguments that make no sense are refused, those with a spelling mistake in their name are not.
async fn mistakes(connection: &Connection, channel: &Channel) -> Result<()> {
    let text = |text: &str| AMQPValue::LongString(text.into());
    for (what, name, value) in [
        ("x-message-ttl -1", "x-message-ttl", AMQPValue::LongLongInt(-1)),
        ("x-message-ttl as a text", "x-message-ttl", text("5000")),
        ("x-expires 0", "x-expires", AMQPValue::LongLongInt(0)),
        ("a dead-letter key and no exchange", "x-dead-letter-routing-key", text("dead")),
    ] {
        let arguments = Arguments::default().with(name, value);
        let refusal =
            refused(connection, async |channel| anonymous(channel, arguments.clone()).await).await?;
        say!(" [x] Declare a queue with {what}: {refusal}");
    }
    anonymous(channel, Arguments::default().with("x-mesage-ttl", AMQPValue::LongLongInt(5000))).await?;
    say!(" [x] Declare a queue with x-mesage-ttl, which does not exist: no complaint, and no limit");
    Ok(())
}
