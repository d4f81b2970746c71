//! AMQP's calls about messages, and what a message carries besides its body.

use futures_lite::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer};
use shared::{CALL_DEADLINE, Deadline, Error, Result, confirmed};
use tokio::time::timeout;

use crate::inspect;

/// Publishes a message and returns once the broker has confirmed that a queue has it. The empty exchange is
/// the default one, whose routing keys are the names of queues.
///
/// # Errors
/// [`Error::Returned`] if no queue is bound for it, [`Error::Nacked`] if a queue is full,
/// [`Error::Refused`] with 404 if there is no such exchange, 406 for properties that are not allowed.
pub async fn publish(
    channel: &Channel,
    exchange: &str,
    key: &str,
    properties: BasicProperties,
    body: &[u8],
) -> Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).deadline("switch on publisher confirms").await?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let published = channel.basic_publish(exchange.into(), key.into(), options, body, properties);
    let confirm = published.deadline("publish a message").await?;
    confirmed(confirm.deadline("get the broker's confirm").await?)
}

/// Starts a consumer under a tag that the broker makes up.
///
/// # Errors
/// [`Error::Refused`] with 403 if another consumer has the queue for itself.
pub async fn consume(channel: &Channel, queue: &str, options: BasicConsumeOptions) -> Result<Consumer> {
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    consumer.deadline("register a consumer").await
}

/// The consumer's next message.
///
/// # Errors
/// [`Error::Timeout`] if none comes, [`Error::Refused`] if the channel or the connection ends,
/// [`Error::ConsumerCancelled`] if the broker ends the consumer.
pub async fn next(consumer: &mut Consumer) -> Result<Delivery> {
    const STEP: &str = "receive a message";
    match timeout(CALL_DEADLINE, consumer.next()).await {
        Ok(Some(Ok(delivery))) => Ok(delivery),
        Ok(Some(Err(cause))) => Err(Error::Refused { step: STEP, cause }),
        Ok(None) => Err(Error::ConsumerCancelled { queue: consumer.queue().to_string() }),
        Err(_) => Err(Error::Timeout { step: STEP, after: CALL_DEADLINE }),
    }
}

/// Receives all messages that are ready in a queue.
///
/// # Errors
/// As [`inspect`], [`consume`] and [`next`].
pub async fn drain(channel: &Channel, queue: &str) -> Result<Vec<Delivery>> {
    let ready = inspect(channel, queue).await?.ready;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut consumer = consume(channel, queue, options).await?;
    let mut deliveries = Vec::new();
    for _ in 0..ready {
        deliveries.push(next(&mut consumer).await?);
    }
    let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
    cancel.deadline("cancel the consumer").await?;
    Ok(deliveries)
}

/// The bodies of some messages on one line.
#[must_use]
pub fn bodies(deliveries: &[Delivery]) -> String {
    let bodies: Vec<_> = deliveries.iter().map(|delivery| String::from_utf8_lossy(&delivery.data)).collect();
    bodies.join(" ")
}

/// A message with each property that AMQP knows and RabbitMQ uses, sent by the user who is logged in.
///
/// The broker itself looks at few of them: `headers` (in a headers exchange), `delivery_mode`, `priority`,
/// `expiration` and `user_id`. The others are for those who write and read the messages.
#[must_use]
pub fn all_properties(user: &str) -> BasicProperties {
    let mut headers = FieldTable::default();
    headers.insert("attempt".into(), AMQPValue::LongInt(1));
    headers.insert("shop".into(), AMQPValue::LongString("north".into()));
    BasicProperties::default()
        .with_headers(headers)
        .with_content_type("application/json".into())
        .with_content_encoding("utf-8".into())
        // 2: kept on disk, so that it survives a restart in a durable queue. 1: not.
        .with_delivery_mode(2)
        .with_priority(5)
        .with_correlation_id("request-1".into())
        .with_reply_to("replies".into())
        // Milliseconds, as text.
        .with_expiration("60000".into())
        .with_message_id("message-1".into())
        // Whole seconds since 1970.
        .with_timestamp(1_698_659_725)
        .with_type("order.created".into())
        // The broker checks this one: nobody can send in another user's name.
        .with_user_id(user.into())
        .with_app_id("shop".into())
}

/// The properties of a message that are set, one on a line, headers last.
#[must_use]
pub fn describe(properties: &BasicProperties) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            lines.push(format!("{name}: {value}"));
        }
    };
    line("content_type", properties.content_type().as_ref().map(ToString::to_string));
    line("content_encoding", properties.content_encoding().as_ref().map(ToString::to_string));
    line("delivery_mode", properties.delivery_mode().map(|mode| mode.to_string()));
    line("priority", properties.priority().map(|priority| priority.to_string()));
    line("correlation_id", properties.correlation_id().as_ref().map(ToString::to_string));
    line("reply_to", properties.reply_to().as_ref().map(ToString::to_string));
    line("expiration", properties.expiration().as_ref().map(ToString::to_string));
    line("message_id", properties.message_id().as_ref().map(ToString::to_string));
    line("timestamp", properties.timestamp().map(|seconds| seconds.to_string()));
    line("type", properties.kind().as_ref().map(ToString::to_string));
    line("user_id", properties.user_id().as_ref().map(ToString::to_string));
    line("app_id", properties.app_id().as_ref().map(ToString::to_string));
    for (name, value) in properties.headers().iter().flatten() {
        line(&format!("header {name}"), Some(in_words(value)));
    }
    lines
}

fn in_words(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::LongInt(number) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_property_is_set_and_described() {
        let lines = describe(&all_properties("guest"));
        let names: Vec<_> =
            lines.iter().filter_map(|line| line.split_once(": ")).map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "content_type",
                "content_encoding",
                "delivery_mode",
                "priority",
                "correlation_id",
                "reply_to",
                "expiration",
                "message_id",
                "timestamp",
                "type",
                "user_id",
                "app_id",
                "header attempt",
                "header shop",
            ]
        );
        assert!(lines.contains(&"user_id: guest".to_owned()));
        assert!(describe(&BasicProperties::default()).is_empty());
    }
}
