//! A service between the striker and a keeper: takes a message, sends it on, and acknowledges it when that is confirmed.
//!
//! Run it with `cargo run -p striker-keeper --example forward`; the keeper runs with `--prefix forwarded-`.

use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use lapin::message::Delivery;
use shared::{Connection, ConnectionArgs, Consumer, Message, Outcome, Publisher, QueueType, Verdict, say};
use striker_keeper::{EXCHANGE, QUEUE, ROUTING_KEY, keeper_topology};

/// Send on what comes to the queue `casillas`, to the exchange `forwarded-penalty`
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let topology = keeper_topology(&args.connection, QueueType::default(), false)?;
        let queue = args.connection.name(QUEUE)?;
        let incoming = Connection::open(&args.connection, "forward in", &shutdown).await?;
        let outgoing = Connection::open(&args.connection, "forward out", &shutdown).await?;
        topology.declare(&incoming).await?;
        say!(" [*] Waiting for messages. To exit press CTRL+C");
        // begin forward
        let publisher = Arc::new(Publisher::new(&outgoing, 1));
        let consumer = Consumer::new("forward", queue).with_prefetch(10).with_topology(topology);
        let forward = consumer.run(&incoming, move |_worker, delivery| send_on(publisher.clone(), delivery));
        // end forward
        forward.await?;
        Ok(())
    })
}

async fn send_on(publisher: Arc<Publisher>, delivery: Delivery) -> Verdict {
    let message = Message {
        exchange: &format!("forwarded-{EXCHANGE}"),
        routing_key: ROUTING_KEY,
        mandatory: true,
        properties: delivery.properties,
        body: &delivery.data,
    };
    if !matches!(publisher.publish(&message).await, Outcome::Confirmed) {
        return Verdict::Retry;
    }
    say!(" [x] {}", String::from_utf8_lossy(&delivery.data));
    Verdict::Ack
}
