//! What becomes of a message that has no queue to go to.
//!
//! Run it with `cargo run -p queue-lifecycle --bin returns`.

use std::process::ExitCode;

use clap::Parser;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation, PublisherConfirm};
use queue_lifecycle::{all_properties, describe, refused};
use shared::{Connection, ConnectionArgs, Deadline, Error, Result, message_id, say};

/// Send messages that have no queue to go to
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    connection: ConnectionArgs,
}

const PLAIN: BasicPublishOptions = BasicPublishOptions { mandatory: false, immediate: false };
const MANDATORY: BasicPublishOptions = BasicPublishOptions { mandatory: true, ..PLAIN };
const IMMEDIATE: BasicPublishOptions = BasicPublishOptions { immediate: true, ..PLAIN };

fn main() -> ExitCode {
    let args: Args = shared::parse();
    shared::run(async |shutdown| {
        let nowhere = args.connection.name(&format!("nowhere-{:.8}", message_id()))?;
        let user = args.connection.endpoint()?.user().to_owned();
        let connection = Connection::open(&args.connection, "returns", &shutdown).await?;
        connection.session(async |session| no_queue(&session.channel, &nowhere, &user).await).await?;

        let refusal = refused(&connection, async |channel| {
            let confirm = send(channel, &nowhere, "", PLAIN, &user).await?;
            say!(" [x] Send to an exchange that does not exist: written without an error");
            confirm.deadline("get the broker's confirm").await
        });
        say!(" [x] Wait for its confirm: {}", refusal.await?);

        // This refusal closes the whole connection, so the message gets one of its own.
        let connection = Connection::open(&args.connection, "returns immediate", &shutdown).await?;
        let refusal = refused(&connection, async |channel| {
            let confirm = send(channel, "", &nowhere, IMMEDIATE, &user).await?;
            confirm.deadline("get the broker's confirm").await
        });
        say!(" [x] Send for a consumer that is ready (immediate): {}", refusal.await?);
        Ok(())
    })
}

async fn no_queue(channel: &Channel, nowhere: &str, user: &str) -> Result<()> {
    let confirm = send(channel, "", nowhere, PLAIN, user).await?;
    let confirmation = confirm.deadline("get the broker's confirm").await?;
    say!(" [x] Send to a queue that does not exist: {}", in_words(&confirmation));

    let confirm = send(channel, "", nowhere, MANDATORY, user).await?;
    let confirmation = confirm.deadline("get the broker's confirm").await?;
    say!(" [x] The same, mandatory: {}, and this came back before", in_words(&confirmation));
    let returned = confirmation.take_message().ok_or_else(|| Error::own("the message did not come back"))?;
    say!("     reply code: {}, reply text: {}", returned.reply_code, returned.reply_text);
    say!("     exchange: '{}', routing key: {}", returned.exchange, returned.routing_key);
    for line in describe(&returned.properties) {
        say!("     {line}");
    }
    say!("     body: {}", String::from_utf8_lossy(&returned.data));
    Ok(())
}

/// Writes a message to the connection. What the broker makes of it is for the confirm to say.
async fn send(
    channel: &Channel,
    exchange: &str,
    key: &str,
    options: BasicPublishOptions,
    user: &str,
) -> Result<PublisherConfirm> {
    channel.confirm_select(ConfirmSelectOptions::default()).deadline("switch on publisher confirms").await?;
    let properties = all_properties(user);
    let published = channel.basic_publish(exchange.into(), key.into(), options, b"to nobody", properties);
    published.deadline("publish a message").await
}

fn in_words(confirmation: &Confirmation) -> &'static str {
    match confirmation {
        Confirmation::Ack(_) => "confirmed",
        Confirmation::Nack(_) => "refused",
        Confirmation::NotRequested => "not confirmed",
    }
}
