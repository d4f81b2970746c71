//! Emptying a queue and deleting it, and when the broker keeps it instead.
//!
//! Run it with `cargo run -p queue-lifecycle --bin purge_delete`.

use std::process::ExitCode;

use clap::Parser;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, QueueDeleteOptions};
use lapin::{BasicProperties, Channel};
use queue_lifecycle::{Arguments, anonymous, consume, delete, inspect, next, publish, purge, refused};
use shared::{Connection, ConnectionArgs, Deadline, Result, say};

/// Empty a queue and delete it
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let connection = Connection::open(&args.connection, "purge_delete", &shutdown).await?;
        connection.session(async |session| lesson(&connection, &session.channel).await).await?;
        Ok(())
    })
}

async fn lesson(connection: &Connection, channel: &Channel) -> Result<()> {
    let queue = &anonymous(channel, Arguments::default()).await?;
    for body in ["one", "two", "three"] {
        publish(channel, "", queue, BasicProperties::default(), body.as_bytes()).await?;
    }
    say!(" [x] Publish three messages: {}", inspect(channel, queue).await?);

    let holding = connection.session(async |session| {
        session.channel.basic_qos(1, BasicQosOptions::default()).deadline("set QoS").await?;
        let mut consumer = consume(&session.channel, queue, BasicConsumeOptions::default()).await?;
        next(&mut consumer).await?;
        say!(" [x] Receive one and do not acknowledge it: {}", inspect(channel, queue).await?);
        say!(" [x] Purge: messages deleted: {}", purge(channel, queue).await?);
        let kept = QueueDeleteOptions { if_unused: true, ..QueueDeleteOptions::default() };
        let refusal = refused(connection, async |channel| delete(channel, queue, kept).await).await?;
        say!(" [x] Delete it if it is unused: {refusal}");
        session.channel.close(200, "OK".into()).deadline("close a channel").await
    });
    holding.await?;

    say!(" [x] Close the consumer's channel: {}", inspect(channel, queue).await?);
    let kept = QueueDeleteOptions { if_empty: true, ..QueueDeleteOptions::default() };
    let refusal = refused(connection, async |channel| delete(channel, queue, kept).await).await?;
    say!(" [x] Delete it if it is empty: {refusal}");

    let deleted = delete(channel, queue, QueueDeleteOptions::default()).await?;
    say!(" [x] Delete it: messages deleted: {deleted}");
    let deleted = delete(channel, queue, QueueDeleteOptions::default()).await?;
    say!(" [x] Delete it again: messages deleted: {deleted}");
    Ok(())
}
