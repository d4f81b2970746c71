//! Topics: receivers choose messages by a pattern of words.
//!
//! A routing key is a list of words with dots between them, such as `kern.critical`. The key of a binding
//! is such a list too, in which `*` stands for exactly one word and `#` for any number of words, none
//! included. Without the two a topic exchange works as a direct one; a binding with `#` alone makes it a
//! fanout exchange.

use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use shared::{Deadline, Result, confirmed};

/// The exchange's name, the same in every language's tutorial.
pub const EXCHANGE: &str = "logs_topic";

/// The routing key of a log line that names none: `<facility>.<severity>`.
pub const DEFAULT_KEY: &str = "anonymous.info";

/// The key of a message, or the pattern of a binding.
///
/// # Errors
/// Text over 255 bytes, which AMQP has no room for.
pub fn key(text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text)
        .map_err(|_| format!("a key has at most 255 bytes, and this one has {}", text.len()))
}

/// Declares the exchange. Both sides do, so that either may start first.
///
/// # Errors
/// [`shared::Error::Refused`] with 406 if an exchange of another type has that name.
pub async fn declare(channel: &Channel, exchange: &str) -> Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    let declared =
        channel.exchange_declare(exchange.into(), ExchangeKind::Topic, options, FieldTable::default());
    declared.deadline("declare an exchange").await
}

/// Publishes one log line and returns once the broker has confirmed it.
///
/// A confirm says that the broker has dealt with a message, not that anybody receives it: one that matches
/// no pattern is dropped and confirmed all the same, unless it is `mandatory`. `message_id` lets a receiver
/// tell a line that was sent again from a new one.
///
/// # Errors
/// [`shared::Error::Returned`] with 312 if it is mandatory and its key matches no pattern.
pub async fn emit(
    channel: &Channel,
    exchange: &str,
    key: &ShortString,
    body: &str,
    message_id: &str,
    mandatory: bool,
) -> Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).deadline("switch on publisher confirms").await?;

    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let properties =
        BasicProperties::default().with_content_type("text/plain".into()).with_message_id(message_id.into());
    let published = channel.basic_publish(exchange.into(), key.clone(), options, body.as_bytes(), properties);
    let confirm = published.deadline("publish a message").await?;
    confirmed(confirm.deadline("get the broker's confirm").await?)
}

/// Declares a queue for one receiver and returns the name that the broker made up for it.
///
/// It is exclusive: it belongs to this connection and is deleted with it. A receiver of logs wants the
/// lines from now on, not those of its absence.
///
/// # Errors
/// [`shared::Error::Refused`] with the broker's reason.
pub async fn declare_queue(channel: &Channel) -> Result<ShortString> {
    let declared = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default());
    Ok(declared.deadline("declare a queue").await?.name().clone())
}

/// Asks the exchange to copy each message whose key matches this pattern to the queue. A message that
/// matches several patterns of one queue still gets there once.
///
/// # Errors
/// [`shared::Error::Refused`] with the broker's reason.
pub async fn bind(
    channel: &Channel,
    queue: &ShortString,
    exchange: &str,
    pattern: &ShortString,
) -> Result<()> {
    let (queue, options) = (queue.clone(), QueueBindOptions::default());
    let bound = channel.queue_bind(queue, exchange.into(), pattern.clone(), options, FieldTable::default());
    bound.deadline("bind a queue").await
}

/// Starts a consumer that needs no acknowledgements: a log line that is lost with its receiver is no loss.
///
/// # Errors
/// [`shared::Error::Refused`] with the broker's reason.
pub async fn consume(channel: &Channel, queue: &ShortString) -> Result<Consumer> {
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    // An empty tag: the broker makes one up.
    let consumer = channel.basic_consume(queue.clone(), "".into(), options, FieldTable::default());
    consumer.deadline("register a consumer").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_any_text_of_up_to_255_bytes() {
        for text in ["", "kern.critical", "*.#", &"x".repeat(255)] {
            assert_eq!(key(text).unwrap().as_str(), text);
        }
        assert_eq!(key(&"é".repeat(128)).unwrap_err(), "a key has at most 255 bytes, and this one has 256");
    }
}
