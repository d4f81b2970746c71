//! Publish/subscribe: every receiver gets a copy of every log line.
//!
//! The publisher knows no queue, only an exchange of type fanout, which copies each message to all queues
//! that are bound to it at that moment. Each receiver brings a queue of its own, so it sees all that is
//! published while it listens, and nothing of what came before.

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use shared::{Deadline, Result, confirmed};

/// The exchange's name, the same in every language's tutorial.
pub const EXCHANGE: &str = "logs";

/// A fanout exchange ignores the routing key, so it may as well be empty.
const ANY_KEY: &str = "";

/// Declares the exchange. Both sides do, so that either may start first: declaring is idempotent.
///
/// # Errors
/// [`shared::Error::Refused`] with 406 if the exchange exists as another type.
pub async fn declare(channel: &Channel, exchange: &str) -> Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared =
        channel.exchange_declare(exchange.into(), ExchangeKind::Fanout, options, FieldTable::default());
    declared.deadline("declare an exchange").await
}

/// Publishes one log line and returns once the broker has taken it.
///
/// Taken is not received: where no queue is bound, the broker drops the message and confirms it all the
/// same. A `mandatory` message it returns instead. `message_id` lets a receiver tell a line that was sent
/// again from a new one.
///
/// # Errors
/// [`shared::Error::Returned`] with 312 if the message was mandatory and no queue is bound.
pub async fn emit(
    channel: &Channel,
    exchange: &str,
    body: &str,
    message_id: &str,
    mandatory: bool,
) -> Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).deadline("switch on publisher confirms").await?;

    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let properties =
        BasicProperties::default().with_content_type("text/plain".into()).with_message_id(message_id.into());
    let published =
        channel.basic_publish(exchange.into(), ANY_KEY.into(), options, body.as_bytes(), properties);
    let confirm = published.deadline("publish a message").await?;
    confirmed(confirm.deadline("get the broker's confirm").await?)
}

/// Declares a queue for one receiver and returns the name that the broker made up for it, such as
/// `amq.gen-JzTY20BRgKO-HjmUJj0wLg`.
///
/// It is exclusive: no other connection may use it, and it is deleted with this one. So each new connection
/// needs a new queue, and has to bind it again.
///
/// # Errors
/// [`shared::Error::Refused`] with the broker's reason.
pub async fn declare_queue(channel: &Channel) -> Result<ShortString> {
    let declared = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default());
    Ok(declared.deadline("declare a queue").await?.name().clone())
}

/// Asks the exchange to copy every message to the queue, from now on.
///
/// # Errors
/// [`shared::Error::Refused`] with the broker's reason.
pub async fn bind(channel: &Channel, queue: &ShortString, exchange: &str) -> Result<()> {
    let (queue, options) = (queue.clone(), QueueBindOptions::default());
    let bound = channel.queue_bind(queue, exchange.into(), ANY_KEY.into(), options, FieldTable::default());
    bound.deadline("bind a queue").await
}

/// Starts a consumer that needs no acknowledgements: a queue that dies with its only receiver has nobody
/// to deliver a message to again.
///
/// # Errors
/// [`shared::Error::Refused`] with the broker's reason.
pub async fn consume(channel: &Channel, queue: &ShortString) -> Result<Consumer> {
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    // An empty tag: the broker makes one up.
    let consumer = channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default());
    consumer.deadline("register a consumer").await
}
