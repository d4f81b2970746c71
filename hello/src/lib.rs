//! Hello World: a producer sends to a queue, a consumer receives from it.
//!
//! Nobody sends to a queue itself. A message goes to an exchange, here the default one, whose name is
//! empty and which routes each message to the queue that is named by its routing key.

use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer, Queue};
use shared::{Deadline, QueueType, Result, confirmed};

/// The queue's name, the same in every language's tutorial.
pub const QUEUE: &str = "hello";

/// Declares the queue. Both sides do, so that either may start first: declaring is idempotent.
///
/// # Errors
/// [`shared::Error::Refused`] with 406 if the queue exists with other properties.
pub async fn declare(channel: &Channel, queue: &str, queue_type: QueueType) -> Result<Queue> {
    let declared = channel.queue_declare(queue.into(), queue_type.options(), queue_type.arguments());
    declared.deadline("declare a queue").await
}

/// Sends one message and returns once the broker has confirmed that it is in the queue.
///
/// `message_id` lets a receiver tell a message that was sent again from a new one.
///
/// # Errors
/// [`shared::Error::Returned`] if no such queue exists, [`shared::Error::Nacked`] if it is full.
pub async fn send(channel: &Channel, queue: &str, body: &str, message_id: &str) -> Result<()> {
    // Without confirms, a publish is over when it is written to the socket, wherever the message ends.
    channel.confirm_select(ConfirmSelectOptions::default()).deadline("switch on publisher confirms").await?;

    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties =
        BasicProperties::default().with_content_type("text/plain".into()).with_message_id(message_id.into());
    let published = channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
    let confirm = published.deadline("publish a message").await?;
    confirmed(confirm.deadline("get the broker's confirm").await?)
}

/// Starts a consumer that needs no acknowledgements: the broker forgets a message once it has sent it on.
///
/// That is simple, and loses what was on its way when a consumer dies. The work queue does better.
///
/// # Errors
/// [`shared::Error::Refused`] with the broker's reason.
pub async fn consume(channel: &Channel, queue: &str) -> Result<Consumer> {
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    // An empty tag: the broker makes one up.
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    consumer.deadline("register a consumer").await
}
