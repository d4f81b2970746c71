//! Exchanges, queues and bindings as plain data, declared in order as often as need be.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use crate::{Connection, Deadline, Error, QueueType, Result, Session};

/// What a program needs on the broker. Declaring it twice is the same as once.
#[derive(Clone, Debug, Default)]
pub struct Topology {
    /// Declared first.
    pub exchanges: Vec<Exchange>,
    /// Declared after the exchanges, which they may name for their dead letters.
    pub queues: Vec<Queue>,
    /// Made last.
    pub bindings: Vec<Binding>,
}

/// An exchange to declare. `Exchange::new` gives the usual values.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// At most 255 bytes. Names that start with `amq.` belong to the broker.
    pub name: String,
    /// How it routes: direct, fanout, topic or headers.
    pub kind: ExchangeKind,
    /// Whether it is there after the broker's restart.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
}

/// A queue to declare. `Queue::new` gives one without limits.
#[derive(Clone, Debug)]
pub struct Queue {
    /// At most 255 bytes. Names that start with `amq.` belong to the broker.
    pub name: String,
    /// Quorum and classic queues are durable, transient ones are not; exclusive ones are for the declaring
    /// connection alone and go with it.
    pub queue_type: QueueType,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// How long a message may wait (`x-message-ttl`), in whole milliseconds.
    pub message_ttl: Option<Duration>,
    /// How long the queue stays while nobody uses it (`x-expires`), at least a millisecond.
    pub expires: Option<Duration>,
    /// How many messages may wait (`x-max-length`).
    pub max_length: Option<u32>,
    /// What happens to one more.
    pub overflow: Option<Overflow>,
    /// Where rejected, expired and surplus messages go (`x-dead-letter-exchange`).
    pub dead_letter_exchange: Option<String>,
    /// With which key (`x-dead-letter-routing-key`); without it, with their own.
    pub dead_letter_routing_key: Option<String>,
    /// The highest priority (`x-max-priority`), for classic queues.
    pub max_priority: Option<u8>,
    /// Sends `x-queue-mode=lazy`. It meant "on disk at once" up to RabbitMQ 3.11; later ones work so
    /// anyway, and ignore or refuse the word. Quorum queues refuse it always.
    pub lazy: bool,
}

/// What a full queue does with one more message (`x-overflow`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Overflow {
    /// The oldest goes, to the dead-letter exchange if there is one.
    DropHead,
    /// The publisher gets a nack.
    RejectPublish,
}

/// Lets messages through from an exchange to a queue.
#[derive(Clone, Debug)]
pub struct Binding {
    /// Where messages come from.
    pub exchange: String,
    /// Where they go.
    pub queue: String,
    /// Which of them: a key, a pattern with `*` and `#`, or nothing, as the exchange's kind wants it.
    pub routing_key: String,
    /// The headers that a headers exchange compares, and `x-match`.
    pub arguments: FieldTable,
}

impl Topology {
    pub(crate) fn is_empty(&self) -> bool {
        self.exchanges.is_empty() && self.queues.is_empty() && self.bindings.is_empty()
    }

    /// Declares everything on a throw-away channel of `connection`, which waits for it if need be.
    ///
    /// # Errors
    /// [`Error::Usage`] for what AMQP cannot carry. [`Error::Refused`] with code 406 if an exchange or queue
    /// of that name exists with another argument, which the text names; trying again does not help.
    pub async fn declare(&self, connection: &Connection) -> Result<()> {
        let mut sessions = connection.sessions();
        loop {
            let declare = async |session: Session| self.declare_on(&session.channel).await;
            if sessions.run(declare).await?.is_some() {
                return Ok(());
            }
        }
    }

    /// Declares everything on `channel`. A refusal costs the channel.
    ///
    /// # Errors
    /// As [`Topology::declare`].
    pub async fn declare_on(&self, channel: &Channel) -> Result<()> {
        for exchange in &self.exchanges {
            exchange.declare_on(channel).await?;
        }
        for queue in &self.queues {
            queue.declare_on(channel).await?;
        }
        for binding in &self.bindings {
            binding.declare_on(channel).await?;
        }
        Ok(())
    }
}

impl Exchange {
    /// A durable exchange.
    #[must_use]
    pub fn new(name: impl Into<String>, kind: ExchangeKind) -> Self {
        Self { name: name.into(), kind, durable: true, auto_delete: false }
    }

    async fn declare_on(&self, channel: &Channel) -> Result<()> {
        let name = short(&self.name)?;
        let options = ExchangeDeclareOptions {
            durable: self.durable,
            auto_delete: self.auto_delete,
            ..ExchangeDeclareOptions::default()
        };
        channel
            .exchange_declare(name, self.kind.clone(), options, FieldTable::default())
            .deadline("declare an exchange")
            .await
    }
}

impl Queue {
    /// A shared queue without limits.
    #[must_use]
    pub fn new(name: impl Into<String>, queue_type: QueueType) -> Self {
        Self {
            name: name.into(),
            queue_type,
            auto_delete: false,
            message_ttl: None,
            expires: None,
            max_length: None,
            overflow: None,
            dead_letter_exchange: None,
            dead_letter_routing_key: None,
            max_priority: None,
            lazy: false,
        }
    }

    async fn declare_on(&self, channel: &Channel) -> Result<()> {
        let name = short(&self.name)?;
        let options = QueueDeclareOptions { auto_delete: self.auto_delete, ..self.queue_type.options() };
        channel.queue_declare(name, options, self.arguments()).deadline("declare a queue").await?;
        Ok(())
    }

    /// Only what was asked for: brokers compare the arguments of each declaration with the first one's.
    fn arguments(&self) -> FieldTable {
        let text = |value: &str| AMQPValue::LongString(value.into());
        let mut arguments = self.queue_type.arguments();
        let mut insert = |key: &str, value: Option<AMQPValue>| {
            if let Some(value) = value {
                arguments.insert(key.into(), value);
            }
        };
        insert("x-message-ttl", self.message_ttl.map(milliseconds));
        insert("x-expires", self.expires.map(milliseconds));
        insert("x-max-length", self.max_length.map(|length| AMQPValue::LongLongInt(length.into())));
        insert("x-overflow", self.overflow.map(|overflow| text(overflow.word())));
        insert("x-dead-letter-exchange", self.dead_letter_exchange.as_deref().map(text));
        insert("x-dead-letter-routing-key", self.dead_letter_routing_key.as_deref().map(text));
        insert("x-max-priority", self.max_priority.map(|priority| AMQPValue::LongLongInt(priority.into())));
        insert("x-queue-mode", self.lazy.then(|| text("lazy")));
        arguments
    }
}

impl Overflow {
    fn word(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
        }
    }
}

impl Binding {
    /// A binding that compares routing keys.
    #[must_use]
    pub fn new(
        exchange: impl Into<String>,
        queue: impl Into<String>,
        routing_key: impl Into<String>,
    ) -> Self {
        let (exchange, queue, routing_key) = (exchange.into(), queue.into(), routing_key.into());
        Self { exchange, queue, routing_key, arguments: FieldTable::default() }
    }

    async fn declare_on(&self, channel: &Channel) -> Result<()> {
        let (exchange, queue, key) = (short(&self.exchange)?, short(&self.queue)?, short(&self.routing_key)?);
        channel
            .queue_bind(queue, exchange, key, QueueBindOptions::default(), self.arguments.clone())
            .deadline("bind a queue")
            .await
    }
}

fn short(name: &str) -> Result<ShortString> {
    ShortString::try_new(name)
        .map_err(|_| Error::usage(format!("the name '{name}' is over 255 bytes, which AMQP has no room for")))
}

/// The broker says so if it is too long.
fn milliseconds(duration: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}
