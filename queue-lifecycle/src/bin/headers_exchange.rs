//! A headers exchange: receivers choose messages by their headers instead of a key.
//!
//! Run it with `cargo run -p queue-lifecycle --bin headers_exchange`.

use std::process::ExitCode;

use clap::Parser;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, ExchangeKind};
use queue_lifecycle::{Arguments, anonymous, drain, publish};
use shared::{Connection, ConnectionArgs, Deadline, Error, Result, message_id, say};

/// Send messages that are routed by their headers
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// What both queues ask for.
const WANTED: [(&str, &str); 2] = [("format", "pdf"), ("type", "report")];

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        // Two runs of this lesson must not meet in one exchange.
        let exchange = args.connection.name(&format!("headers-{:.8}", message_id()))?;
        let connection = Connection::open(&args.connection, "headers_exchange", &shutdown).await?;
        connection.session(async |session| lesson(&session.channel, &exchange).await).await?;
        Ok(())
    })
}

async fn lesson(channel: &Channel, exchange: &str) -> Result<()> {
    // Auto-delete: an exchange like that goes with the last queue that is bound to it.
    let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
    let declared =
        channel.exchange_declare(exchange.into(), ExchangeKind::Headers, options, FieldTable::default());
    declared.deadline("declare an exchange").await?;

    let mut queues = Vec::new();
    for x_match in ["all", "any"] {
        let queue = anonymous(channel, Arguments::default()).await?;
        // The key of the binding is left empty: this type of exchange does not look at it.
        let options = QueueBindOptions::default();
        let arguments = table(&[&[("x-match", x_match)], &WANTED[..]].concat());
        let bound = channel.queue_bind(queue.as_str().into(), exchange.into(), "".into(), options, arguments);
        bound.deadline("bind a queue").await?;
        say!(" [x] Bind queue '{x_match}' with x-match={x_match} {}", in_words(&WANTED));
        queues.push((x_match, queue));
    }

    for headers in [
        &[("format", "pdf"), ("type", "report")][..],
        &[("format", "pdf"), ("type", "report"), ("year", "2023")],
        &[("format", "pdf"), ("type", "letter")],
        &[("type", "letter")],
        &[],
    ] {
        let properties = BasicProperties::default().with_headers(table(headers));
        match publish(channel, exchange, "any key", properties, b"").await {
            // No queue wanted it, which is what the line below says.
            Ok(()) | Err(Error::Returned { .. }) => {}
            Err(error) => return Err(error),
        }
        let mut receivers = Vec::new();
        for (name, queue) in &queues {
            if !drain(channel, queue).await?.is_empty() {
                receivers.push(*name);
            }
        }
        say!(" [x] Send {}: received by [{}]", in_words(headers), receivers.join(", "));
    }
    Ok(())
}

fn table(headers: &[(&'static str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    table
}

fn in_words(headers: &[(&str, &str)]) -> String {
    let words: Vec<_> = headers.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if words.is_empty() { "no headers".to_owned() } else { words.join(" ") }
}
