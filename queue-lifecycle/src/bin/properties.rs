//! What a message carries: properties, headers and a body that the broker never looks into.
//!
//! Run it with `cargo run -p queue-lifecycle --bin properties`.

use std::process::ExitCode;

use clap::Parser;
use lapin::message::Delivery;
use lapin::{BasicProperties, Channel};
use queue_lifecycle::{Arguments, all_properties, anonymous, describe, drain, publish, refused};
use shared::{Connection, ConnectionArgs, Error, Result, say};

/// Send a message with all of its properties, and send a received one on
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let endpoint = args.connection.endpoint()?;
        let connection = Connection::open(&args.connection, "properties", &shutdown).await?;
        let lesson =
            connection.session(async |session| lesson(&connection, &session.channel, endpoint.user()).await);
        lesson.await?;
        Ok(())
    })
}

async fn lesson(connection: &Connection, channel: &Channel, user: &str) -> Result<()> {
    let queue = &anonymous(channel, Arguments::default()).await?;

    publish(channel, "", queue, all_properties(user), br#"{"order": 1}"#).await?;
    let received = receive(channel, queue).await?;
    say!(" [x] Receive a message with all properties");
    say!("     exchange: '{}', routing key: {}", received.exchange, received.routing_key);
    say!("     delivery tag: {}, redelivered: {}", received.delivery_tag, received.redelivered);
    for line in describe(&received.properties) {
        say!("     {line}");
    }
    say!("     body: {}", String::from_utf8_lossy(&received.data));

    // The properties are one value: a copy leaves none out, not even those that this program knows nothing of.
    publish(channel, "", queue, received.properties.clone(), &received.data).await?;
    let copy = receive(channel, queue).await?;
    let same = copy.properties == received.properties && copy.data == received.data;
    say!(
        " [x] Send it on with all that it carries: {}",
        if same { "the same arrives" } else { "another arrives" }
    );

    publish(channel, "", queue, BasicProperties::default().with_message_id("bare".into()), b"").await?;
    let bare = receive(channel, queue).await?;
    say!(" [x] Send an empty body: {} bytes, {}", bare.data.len(), describe(&bare.properties).join(", "));
    publish(channel, "", queue, BasicProperties::default(), b"\xff\x00\xfe").await?;
    let binary = receive(channel, queue).await?;
    say!(" [x] Send three bytes that are no text: {:02x?}", binary.data);

    let refusal = refused(connection, async |channel| {
        let forged = BasicProperties::default().with_user_id("somebody-else".into());
        publish(channel, "", queue, forged, b"").await
    });
    say!(" [x] Send in another user's name: {}", refusal.await?);
    let refusal = refused(connection, async |channel| {
        let unreadable = BasicProperties::default().with_expiration("tomorrow".into());
        publish(channel, "", queue, unreadable, b"").await
    });
    say!(" [x] Send with the expiration 'tomorrow': {}", refusal.await?);
    Ok(())
}

async fn receive(channel: &Channel, queue: &str) -> Result<Delivery> {
    drain(channel, queue).await?.pop().ok_or_else(|| Error::own("the queue is empty"))
}
