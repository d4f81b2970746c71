//! What is still there after the broker was restarted.
//!
//! Run `cargo run -p queue-lifecycle --bin survive_restart before`, restart the broker, then
//! `cargo run -p queue-lifecycle --bin survive_restart after`.

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, ExchangeKind};
use queue_lifecycle::{Arguments, attempt, declare, delete, drain, inspect, publish};
use shared::{Connection, ConnectionArgs, Deadline, Error, Result, say};

/// Make things before a restart of the broker, and look for them after it
#[derive(Parser)]
struct Args {
    /// Whether to make them or to look for them and remove them
    when: When,

    #[command(flatten)]
    connection: ConnectionArgs,
}

#[derive(Clone, Copy, ValueEnum)]
enum When {
    Before,
    After,
}

/// The names of the things.
struct Names {
    queue: String,
    /// Exchanges: the name, and whether it is durable.
    exchanges: [(String, bool); 2],
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let name = |name| args.connection.name(name);
        let names = Names {
            queue: name("survive_restart")?,
            exchanges: [
                (name("survive_restart-durable")?, true),
                (name("survive_restart-transient")?, false),
            ],
        };
        let connection = Connection::open(&args.connection, "survive_restart", &shutdown).await?;
        let run = connection.session(async |session| match args.when {
            When::Before => before(&session.channel, &names).await,
            When::After => after(&connection, &session.channel, &names).await,
        });
        run.await?;
        Ok(())
    })
}

async fn before(channel: &Channel, names: &Names) -> Result<()> {
    remove(channel, names).await?;
    let queue = names.queue.as_str();
    // A quorum queue would keep both messages: it keeps every message, whatever its delivery mode.
    declare(channel, queue, QueueDeclareOptions::durable(), Arguments::default().classic()).await?;
    for (body, mode) in [("transient", 1), ("persistent", 2)] {
        let properties = BasicProperties::default().with_delivery_mode(mode);
        publish(channel, "", queue, properties, body.as_bytes()).await?;
    }
    say!(" [x] Declare {queue} and publish a transient message and a persistent one");
    for (exchange, durable) in &names.exchanges {
        let options = ExchangeDeclareOptions { durable: *durable, ..ExchangeDeclareOptions::default() };
        let declared = channel.exchange_declare(
            exchange.as_str().into(),
            ExchangeKind::Fanout,
            options,
            FieldTable::default(),
        );
        declared.deadline("declare an exchange").await?;
        say!(" [x] Declare {exchange}");
    }
    say!(" [*] Restart the broker, then run survive_restart after");
    Ok(())
}

async fn after(connection: &Connection, channel: &Channel, names: &Names) -> Result<()> {
    let queue = names.queue.as_str();
    let there = exists(connection, async |channel| inspect(channel, queue).await).await?;
    say!(" [x] Queue {queue}: {}", in_words(there));
    let deliveries = if there { drain(channel, queue).await? } else { Vec::new() };
    for body in ["transient", "persistent"] {
        let there = deliveries.iter().any(|delivery| delivery.data == body.as_bytes());
        say!(" [x] Its {body} message: {}", in_words(there));
    }
    for (exchange, durable) in &names.exchanges {
        let there = exists(connection, async |channel| {
            let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
            let (name, kind) = (exchange.as_str().into(), ExchangeKind::Fanout);
            let declared = channel.exchange_declare(name, kind, passive, FieldTable::default());
            declared.deadline("look for an exchange").await
        });
        match there.await? {
            // Their store of metadata, Khepri, does not tell one kind from the other.
            true if !durable => {
                say!(" [x] Exchange {exchange}: still there; RabbitMQ 4.3 and later keep it");
            }
            there => say!(" [x] Exchange {exchange}: {}", in_words(there)),
        }
    }
    remove(channel, names).await
}

/// Whether there is what the look looks for.
async fn exists<T>(connection: &Connection, look: impl AsyncFnMut(&Channel) -> Result<T>) -> Result<bool> {
    match attempt(connection, look).await? {
        Ok(_) => Ok(true),
        Err(refusal) if refusal.code == 404 => Ok(false),
        Err(refusal) => Err(Error::own(refusal)),
    }
}

async fn remove(channel: &Channel, names: &Names) -> Result<()> {
    delete(channel, &names.queue, QueueDeleteOptions::default()).await?;
    for (exchange, _) in &names.exchanges {
        let deleted = channel.exchange_delete(exchange.as_str().into(), ExchangeDeleteOptions::default());
        deleted.deadline("delete an exchange").await?;
    }
    Ok(())
}

fn in_words(there: bool) -> &'static str {
    if there { "still there" } else { "gone" }
}
