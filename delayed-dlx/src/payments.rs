//! Poison messages: what to do with a message whose handler always fails.
//!
//! Put back into the queue it comes back at once, for ever, and keeps the workers from the good ones. So
//! each message is tried a few times, with a pause in between, and then rejected to a dead-letter queue,
//! where it waits for a person.
//!
//! For the pause, the worker publishes a copy to a wait queue, with the number of the attempt in a header of
//! its own, and acknowledges the original. The broker's `x-death` counts are no help here: RabbitMQ 4 starts
//! them anew when a client publishes a copy. And to let the broker send what was rejected round a loop of
//! dead-letter exchanges would lose messages: it drops one that comes by a second time without a rejection
//! on the way, as one does that ran into the delivery limit.
//!
//! What the broker itself gives up on goes the same way to the dead-letter queue: a quorum queue counts how
//! often a message came back, whether it was put back or its worker crashed.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions, ExchangeDeclareOptions,
    QueueBindOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use shared::{ConnectionArgs, Deadline, Error, Message, Outcome, Publisher, QueueType, Result};

use crate::amqp::{declare_queue, publish, text};
use crate::ttl;

/// The worker's own header: which attempt this is. Absent on the first.
const ATTEMPT: &str = "attempt";

/// Headers that the broker writes. A copy must not bring them along: before RabbitMQ 4, the broker goes on
/// counting from what it finds there.
const WRITTEN_BY_THE_BROKER: [&str; 4] = ["x-death", "x-first-death-", "x-last-death-", "x-delivery-count"];

/// The queues of the payments, and how often and how soon a failed one is tried again.
#[derive(Clone, Debug)]
pub struct Payments {
    /// Where workers take payments from.
    pub queue: String,
    /// Where failed ones wait until they are tried again.
    pub retry: String,
    /// Where those end that were tried often enough.
    pub dead: String,
    /// The dead-letter exchange of `queue`.
    pub exchange: String,
    /// How many times a payment is tried. At least 1.
    pub attempts: u32,
    /// The pause between two attempts.
    pub pause: Duration,
    /// What `queue` and `dead` are declared as.
    pub queue_type: QueueType,
}

/// What becomes of a payment that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Failed {
    /// It is tried again after the pause.
    Again,
    /// It was rejected to the dead-letter queue.
    Dead,
}

impl Payments {
    /// The names with the prefix in front.
    ///
    /// # Errors
    /// [`Error::Usage`] if the prefix is too long.
    pub fn new(args: &ConnectionArgs, attempts: u32, pause: Duration, queue_type: QueueType) -> Result<Self> {
        Ok(Self {
            queue: args.name("payments")?,
            retry: args.name(&format!("payments.retry.{}ms", pause.as_millis()))?,
            dead: args.name("payments.dead")?,
            exchange: args.name("payments.dlx")?,
            attempts,
            pause,
            queue_type,
        })
    }

    /// Declares the dead-letter queue and its exchange, the queue of the payments, and the wait queue.
    ///
    /// # Errors
    /// [`Error::Refused`] with 406 if one of them exists with other properties.
    pub async fn declare(&self, channel: &Channel) -> Result<()> {
        // A fanout exchange, because whatever dies goes to the one queue, whichever key it has.
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange = || self.exchange.as_str().into();
        let declared =
            channel.exchange_declare(exchange(), ExchangeKind::Fanout, durable, FieldTable::default());
        declared.deadline("declare an exchange").await?;
        declare_queue(channel, &self.dead, self.queue_type.options(), self.queue_type.arguments()).await?;
        let options = QueueBindOptions::default();
        let dead = self.dead.as_str().into();
        let binding = channel.queue_bind(dead, exchange(), "".into(), options, FieldTable::default());
        binding.deadline("bind a queue").await?;

        let mut arguments = self.queue_type.arguments();
        arguments.insert("x-dead-letter-exchange".into(), text(&self.exchange));
        if self.queue_type == QueueType::Quorum {
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(self.attempts.into()));
        }
        declare_queue(channel, &self.queue, self.queue_type.options(), arguments).await?;

        // A classic queue, because quorum queues have a time to live only since RabbitMQ 3.10.
        let mut arguments = QueueType::Classic.arguments();
        arguments.insert("x-message-ttl".into(), ttl::of_queue(self.pause));
        // Back to where they came from, through the default exchange.
        arguments.insert("x-dead-letter-exchange".into(), text(""));
        arguments.insert("x-dead-letter-routing-key".into(), text(&self.queue));
        declare_queue(channel, &self.retry, QueueType::Classic.options(), arguments).await.map(drop)
    }

    /// Starts a consumer that gets one payment at a time.
    ///
    /// # Errors
    /// [`Error::Refused`] with the broker's reason.
    pub async fn consume(&self, channel: &Channel) -> Result<Consumer> {
        channel.basic_qos(1, BasicQosOptions::default()).deadline("set QoS").await?;
        let consumer = channel.basic_consume(
            self.queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        consumer.deadline("register a consumer").await
    }

    /// Settles a payment whose handler failed: another attempt after the pause, or the dead-letter queue.
    ///
    /// # Errors
    /// The broker did not take the copy or the answer. The payment is then delivered once more.
    pub async fn failed(&self, payment: &Delivery, channel: &Channel, copies: &Publisher) -> Result<Failed> {
        let attempt = attempt(&payment.properties);
        if attempt >= self.attempts {
            reject(payment, channel, false).await?;
            return Ok(Failed::Dead);
        }
        let copy = Message {
            exchange: "",
            routing_key: &self.retry,
            mandatory: true,
            properties: of_attempt(&payment.properties, attempt + 1),
            body: &payment.data,
        };
        loop {
            match copies.publish(&copy).await {
                Outcome::Confirmed => break,
                // A copy that the broker will never take, for instance because of another's user-id.
                Outcome::NotSent(error) if error.is_refusal() => {
                    tracing::warn!("cannot be tried again: {error}");
                    reject(payment, channel, false).await?;
                    return Ok(Failed::Dead);
                }
                // A broker short of memory. The payment is safe as long as it is not acknowledged. If the
                // copy was on its way already, there are two of it in the end.
                Outcome::NotSent(error @ Error::Blocked { .. })
                | Outcome::Unknown(error @ Error::Blocked { .. }) => tracing::warn!("{error}"),
                // Somebody deleted the wait queue.
                Outcome::Returned { .. } => self.declare(channel).await?,
                Outcome::Nacked => return Err(Error::Nacked),
                Outcome::NotSent(error) | Outcome::Unknown(error) => return Err(error),
            }
        }
        // The copy is safe. If this worker dies before the next line, the payment is there twice.
        let ack = channel.basic_ack(payment.delivery_tag, BasicAckOptions::default());
        ack.deadline("acknowledge a payment").await?;
        Ok(Failed::Again)
    }
}

/// Sends one payment and returns once the broker has it on disk.
///
/// # Errors
/// [`Error::Returned`] if there is no such queue, [`Error::Nacked`] if it could not be stored.
pub async fn send(channel: &Channel, queue: &str, payment: &str, message_id: &str) -> Result<()> {
    let properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        .with_delivery_mode(2)
        .with_message_id(message_id.into());
    publish(channel, "", queue, payment.as_bytes(), properties).await
}

/// Refuses a payment: back to its queue, or to the dead-letter exchange.
///
/// `basic.reject` and not `basic.nack`: since RabbitMQ 4.3, only the former counts towards the delivery limit
/// of a quorum queue, so a message that is put back with the latter comes back for ever.
///
/// # Errors
/// [`Error::Refused`] or [`Error::Timeout`]; the payment is then delivered once more.
pub async fn reject(payment: &Delivery, channel: &Channel, requeue: bool) -> Result<()> {
    let rejected = channel.basic_reject(payment.delivery_tag, BasicRejectOptions { requeue });
    rejected.deadline("reject a payment").await
}

/// Which attempt this is, from 1.
#[must_use]
pub fn attempt(properties: &BasicProperties) -> u32 {
    let header = properties.headers().as_ref().and_then(|headers| headers.inner().get(ATTEMPT));
    // Anything else under that name is somebody else's header.
    header.and_then(AMQPValue::as_long_uint).unwrap_or(1).max(1)
}

/// All the properties of a message, for a copy that is the attempt of this number.
fn of_attempt(properties: &BasicProperties, attempt: u32) -> BasicProperties {
    let mut headers = FieldTable::default();
    for (name, value) in properties.headers().iter().flatten() {
        if !WRITTEN_BY_THE_BROKER.iter().any(|start| name.as_str().starts_with(start)) {
            headers.insert(name.clone(), value.clone());
        }
    }
    headers.insert(ATTEMPT.into(), AMQPValue::LongUInt(attempt));
    properties.clone().with_headers(headers)
}

#[cfg(test)]
mod tests;
