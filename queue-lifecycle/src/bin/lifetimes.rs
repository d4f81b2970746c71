//! When a queue goes by itself: exclusive, auto-delete, `x-expires`.
//!
//! Run it with `cargo run -p queue-lifecycle --bin lifetimes`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lapin::Channel;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, QueueDeclareOptions};
use queue_lifecycle::{Arguments, Refusal, anonymous, attempt, consume, inspect, refused};
use shared::{CALL_DEADLINE, Connection, ConnectionArgs, Deadline, Error, Result, Shutdown, say};
use tokio::time::{Instant, sleep};

/// See queues that the broker deletes by itself
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// How soon to look again whether a queue is gone.
const A_MOMENT: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let connection = Connection::open(&args.connection, "lifetimes", &shutdown).await?;
        let lesson = connection.session(async |session| {
            exclusive(&args.connection, &connection).await?;
            auto_delete(&args.connection, &connection, &session.channel).await?;
            expires(&connection, &session.channel).await
        });
        lesson.await?;
        Ok(())
    })
}

/// Declares a queue without a name on a connection of its own, and returns the name and the way to close
/// that connection.
async fn declare_elsewhere(
    args: &ConnectionArgs,
    options: QueueDeclareOptions,
    arguments: Arguments,
) -> Result<(String, Connection, Shutdown)> {
    let shutdown = Shutdown::new();
    let elsewhere = Connection::open(args, "lifetimes elsewhere", &shutdown).await?;
    let declare = elsewhere.session(async |session| {
        let declared = session.channel.queue_declare("".into(), options, arguments.clone().table());
        Ok(declared.deadline("declare a queue").await?.name().to_string())
    });
    Ok((declare.await?, elsewhere, shutdown))
}

/// An exclusive queue belongs to one connection, with all of its channels, and goes with it.
async fn exclusive(args: &ConnectionArgs, connection: &Connection) -> Result<()> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::exclusive() };
    let (queue, owner, shutdown) = declare_elsewhere(args, options, Arguments::default().classic()).await?;
    say!(" [x] Declare an exclusive queue, durable even: {queue}");

    let counts = owner.session(async |session| inspect(&session.channel, &queue).await).await?;
    say!(" [x] Look at it on another channel of its connection: {counts}");
    let refusal = refused(connection, async |channel| inspect(channel, &queue).await).await?;
    say!(" [x] Look at it on another connection: {refusal}");

    shutdown.close_connections().await;
    let refusal = gone(connection, &queue, A_MOMENT).await?;
    say!(" [x] Close its connection and look again: {refusal}");
    Ok(())
}

/// An auto-delete queue goes with its last consumer, and stays as long as it never had one.
async fn auto_delete(args: &ConnectionArgs, connection: &Connection, channel: &Channel) -> Result<()> {
    let options = QueueDeclareOptions::durable().auto_delete();
    // Should this program be stopped before there is a consumer, the broker deletes the queue after a minute.
    let arguments = Arguments::default().classic().expires(Duration::from_secs(60));
    let (queue, _, shutdown) = declare_elsewhere(args, options, arguments).await?;
    say!(" [x] Declare an auto-delete queue: {queue}");

    shutdown.close_connections().await;
    say!(" [x] Close its connection and look at it: {}", inspect(channel, &queue).await?);

    let consumer = consume(channel, &queue, BasicConsumeOptions::default()).await?;
    say!(" [x] Consume it: {}", inspect(channel, &queue).await?);
    let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    cancel.deadline("cancel the consumer").await?;
    let refusal = gone(connection, &queue, A_MOMENT).await?;
    say!(" [x] Cancel the only consumer and look again: {refusal}");
    Ok(())
}

/// A queue with `x-expires` goes when it was unused for that long.
async fn expires(connection: &Connection, channel: &Channel) -> Result<()> {
    let unused = Duration::from_millis(300);
    let queue = anonymous(channel, Arguments::default().expires(unused)).await?;
    say!(" [x] Declare a queue with x-expires 300: {queue}");
    // Looking at it counts as a use, so it has to be left alone for longer.
    let refusal = gone(connection, &queue, 2 * unused).await?;
    say!(" [x] Leave it alone and look again: {refusal}");
    Ok(())
}

/// Waits for the queue to be gone, looking once in an interval.
async fn gone(connection: &Connection, queue: &str, interval: Duration) -> Result<Refusal> {
    let end = Instant::now() + CALL_DEADLINE;
    while Instant::now() < end {
        sleep(interval).await;
        match attempt(connection, async |channel| inspect(channel, queue).await).await? {
            Err(refusal) if refusal.code == 404 => return Ok(refusal),
            _ => {}
        }
    }
    Err(Error::own(format!("the queue {queue} is still there")))
}
