//! The delay: an order that is not paid in time is cancelled and its stock put back.
//!
//! The producer puts each order into a *wait queue* that nobody consumes. When the queue's time to live is
//! up, the broker publishes the order to the dead-letter exchange `orders.dlx`, which routes it to
//! `orders.unpaid`. The consumer waits there.
//!
//! Each delay has a wait queue of its own, because messages leave a queue only in the order in which they
//! came in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use shared::{ConnectionArgs, Deadline, QueueType, Result};

use crate::amqp::{declare_queue, publish, text};
use crate::ttl;

/// The key with which orders leave the wait queues, whichever they were in.
const UNPAID: &str = "unpaid";

/// When the producer sent the order: milliseconds since 1970. The property `timestamp` counts in seconds.
const ORDERED_AT: &str = "ordered-at-ms";

/// How long the order may stay unpaid: milliseconds.
const DELAY: &str = "delay-ms";

/// What both sides declare, so that either may start first.
#[derive(Clone, Debug)]
pub struct Orders {
    /// The dead-letter exchange of all wait queues.
    pub exchange: String,
    /// The queue of the orders whose time is up.
    pub unpaid: String,
    /// What all queues are declared as.
    pub queue_type: QueueType,
}

/// Where an order waits.
#[derive(Clone, Debug)]
pub struct WaitQueue {
    /// The queue's name, which tells its delay: a queue cannot change its own.
    pub name: String,
    /// The queue's time to live; `None` leaves it to each message.
    pub ttl: Option<Duration>,
}

/// An order on its way to the wait queue.
#[derive(Clone, Debug)]
pub struct Order {
    /// What the customer ordered.
    pub text: String,
    /// How long it may stay unpaid.
    pub delay: Duration,
    /// When it was ordered.
    pub at: SystemTime,
    /// Tells an order that was sent again from a new one.
    pub message_id: String,
}

/// An order whose time is up.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Unpaid {
    /// What the customer ordered.
    pub text: String,
    /// The delay that was asked for; `None` if the message does not tell.
    pub asked: Option<Duration>,
    /// The delay that really passed, by the clocks of both sides; `None` if the message does not tell, or if
    /// this side's clock is behind.
    pub passed: Option<Duration>,
}

impl Orders {
    /// The names with the prefix in front.
    ///
    /// # Errors
    /// [`shared::Error::Usage`] if the prefix is too long.
    pub fn new(args: &ConnectionArgs, queue_type: QueueType) -> Result<Self> {
        Ok(Self { exchange: args.name("orders.dlx")?, unpaid: args.name("orders.unpaid")?, queue_type })
    }

    /// Declares the dead-letter exchange, the queue of unpaid orders, and the way from one to the other.
    ///
    /// A dead-letter exchange is an exchange like any other. Without it, or without the binding, the broker
    /// drops what dies, and tells nobody.
    ///
    /// # Errors
    /// [`shared::Error::Refused`] with 406 if one of them exists with other properties.
    pub async fn declare(&self, channel: &Channel) -> Result<()> {
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let exchange = channel.exchange_declare(
            self.exchange.as_str().into(),
            ExchangeKind::Direct,
            durable,
            FieldTable::default(),
        );
        exchange.deadline("declare an exchange").await?;
        declare_queue(channel, &self.unpaid, self.queue_type.options(), self.queue_type.arguments()).await?;
        let binding = channel.queue_bind(
            self.unpaid.as_str().into(),
            self.exchange.as_str().into(),
            UNPAID.into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        binding.deadline("bind a queue").await
    }

    /// Declares a wait queue: time to live, and where to go afterwards.
    ///
    /// There is no `x-expires` on it: a queue that expires takes its messages with it, and they are not
    /// dead-lettered.
    ///
    /// # Errors
    /// [`shared::Error::Refused`] with 406 if it exists with other properties, or if it is to be a quorum
    /// queue and the broker is older than RabbitMQ 3.10.
    pub async fn declare_wait_queue(&self, channel: &Channel, wait: &WaitQueue) -> Result<()> {
        let mut arguments = self.queue_type.arguments();
        arguments.insert("x-dead-letter-exchange".into(), text(&self.exchange));
        // Without it, an order would keep its key: the name of the wait queue.
        arguments.insert("x-dead-letter-routing-key".into(), text(UNPAID));
        if let Some(ttl) = wait.ttl {
            arguments.insert("x-message-ttl".into(), ttl::of_queue(ttl));
        }
        if self.queue_type == QueueType::Quorum {
            // Keeps an order until the next queue has confirmed it. Other queue types send and forget it.
            arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
            arguments.insert("x-overflow".into(), text("reject-publish"));
        }
        declare_queue(channel, &wait.name, self.queue_type.options(), arguments).await.map(drop)
    }

    /// Starts a consumer on the queue of unpaid orders, which have to be acknowledged.
    ///
    /// # Errors
    /// [`shared::Error::Refused`] with the broker's reason.
    pub async fn consume(&self, channel: &Channel) -> Result<Consumer> {
        channel.basic_qos(10, BasicQosOptions::default()).deadline("set QoS").await?;
        let consumer = channel.basic_consume(
            self.unpaid.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        consumer.deadline("register a consumer").await
    }
}

impl WaitQueue {
    /// The queue in which every message waits for the same time.
    ///
    /// # Errors
    /// [`shared::Error::Usage`] if the prefix is too long.
    pub fn of_delay(args: &ConnectionArgs, delay: Duration) -> Result<Self> {
        let name = args.name(&format!("orders.wait.{}ms", delay.as_millis()))?;
        Ok(Self { name, ttl: Some(delay) })
    }

    /// The trap: one queue for all delays, each message with a time to live of its own. Messages expire only
    /// at the head of the queue, so a long delay holds up the shorter ones behind it.
    ///
    /// # Errors
    /// [`shared::Error::Usage`] if the prefix is too long.
    pub fn of_all_delays(args: &ConnectionArgs) -> Result<Self> {
        Ok(Self { name: args.name("orders.wait.per-message")?, ttl: None })
    }
}

/// Sends an order to its wait queue and returns once the broker has it on disk.
///
/// # Errors
/// [`shared::Error::Returned`] if there is no such queue, [`shared::Error::Nacked`] if it was not stored.
pub async fn send(channel: &Channel, wait: &WaitQueue, order: &Order) -> Result<()> {
    let mut headers = FieldTable::default();
    headers.insert(ORDERED_AT.into(), milliseconds(order.at.duration_since(UNIX_EPOCH).unwrap_or_default()));
    headers.insert(DELAY.into(), milliseconds(order.delay));
    let mut properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        // Persistent: a delay may be longer than the broker's next restart is away.
        .with_delivery_mode(2)
        .with_message_id(order.message_id.as_str().into())
        .with_headers(headers);
    if wait.ttl.is_none() {
        properties = properties.with_expiration(ttl::of_message(order.delay));
    }
    publish(channel, "", &wait.name, order.text.as_bytes(), properties).await
}

impl Unpaid {
    /// Reads a message from the queue of unpaid orders, whoever sent it.
    #[must_use]
    pub fn read(delivery: &Delivery, now: SystemTime) -> Self {
        let header = |name: &str| {
            let value = delivery.properties.headers().as_ref()?.inner().get(name)?.as_long_long_int()?;
            Some(Duration::from_millis(value.try_into().ok()?))
        };
        let ordered_at = header(ORDERED_AT);
        let now = now.duration_since(UNIX_EPOCH).ok();
        Self {
            text: String::from_utf8_lossy(&delivery.data).into_owned(),
            asked: header(DELAY),
            passed: now.zip(ordered_at).and_then(|(now, then)| now.checked_sub(then)),
        }
    }
}

fn milliseconds(duration: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}
