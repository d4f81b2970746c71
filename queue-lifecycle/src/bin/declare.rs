//! Declaring a queue: names, flags that must agree, and no-wait.
//!
//! Run it with `cargo run -p queue-lifecycle --bin declare`.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use lapin::Channel;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions, QueueDeleteOptions};
use queue_lifecycle::{Arguments, anonymous, consume, declare, delete, next, refused};
use shared::{Connection, ConnectionArgs, Result, message_id, say};

/// Declare a queue, and once more with other flags
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        // Two runs of this lesson must not meet in one queue.
        let queue = args.connection.name(&format!("declare-{:.8}", message_id()))?;
        let connection = Connection::open(&args.connection, "declare", &shutdown).await?;
        connection.session(async |session| lesson(&connection, &session.channel, &queue).await).await?;
        Ok(())
    })
}

async fn lesson(connection: &Connection, channel: &Channel, queue: &str) -> Result<()> {
    let name = anonymous(channel, Arguments::default()).await?;
    say!(" [x] Declare a queue without a name: the broker calls it {name}");

    let durable = QueueDeclareOptions::durable();
    // Should this program be stopped half-way, the broker deletes the queue after a minute.
    let arguments = || Arguments::default().classic().expires(Duration::from_secs(60));
    let counts = declare(channel, queue, durable, arguments()).await?;
    say!(" [x] Declare {queue}, durable: {counts}");
    let counts = declare(channel, queue, durable, arguments()).await?;
    say!(" [x] Declare it again, just so: {counts}");

    let transient = QueueDeclareOptions { durable: false, ..durable };
    let refusal = refused(connection, async |channel| declare(channel, queue, transient, arguments()).await);
    say!(" [x] Declare it again, not durable: {}", refusal.await?);
    let longer = || arguments().max_length(5);
    let refusal = refused(connection, async |channel| declare(channel, queue, durable, longer()).await);
    say!(" [x] Declare it again, with x-max-length: {}", refusal.await?);

    let no_wait = QueueDeclareOptions { nowait: true, ..transient };
    let refusal = refused(connection, async |channel| {
        // With no-wait the broker sends no answer, not even a refusal: it just closes the channel, and
        // whoever uses the channel next, here a consumer, finds out.
        let mut consumer = consume(channel, queue, BasicConsumeOptions::default()).await?;
        declare(channel, queue, no_wait, arguments()).await?;
        say!(" [x] Declare it again, not durable, with no-wait: no answer");
        next(&mut consumer).await
    });
    say!(" [x] Wait for a message on that channel: {}", refusal.await?);

    let name = "amq.mine";
    let refusal = refused(connection, async |channel| declare(channel, name, durable, arguments()).await);
    say!(" [x] Declare {name}: {}", refusal.await?);

    delete(channel, queue, QueueDeleteOptions::default()).await?;
    Ok(())
}
