//! What every lesson needs: a shop that orders come through, and a queue that the dead ones go to.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{
    BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicRejectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use shared::{ConnectionArgs, Deadline, Error, QueueType, Result, Session, message_id};
use tokio::time::{sleep, timeout};

use crate::amqp::{declare_queue, publish, text};
use crate::ttl;
use crate::x_death::{Death, XDeath};

/// How long to wait for what must come.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often to look for what nobody announces.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The exchanges `shop` and `shop.dlx`, and the queue `dead` behind the latter, with a consumer on it.
///
/// All names begin with something that no other run has, and all but quorum queues are gone with the
/// connection.
pub(super) struct Stage<'s> {
    session: &'s Session,
    args: &'s ConnectionArgs,
    run: String,
    dead: Consumer,
}

impl<'s> Stage<'s> {
    pub(super) async fn set(session: &'s Session, args: &'s ConnectionArgs) -> Result<Self> {
        let run: String = message_id().chars().take(8).collect();
        let name = |short: &str| args.name(&format!("dead_letters.{run}.{short}"));
        let channel = &session.channel;
        for (exchange, kind) in [("shop", ExchangeKind::Direct), ("shop.dlx", ExchangeKind::Fanout)] {
            // Deleted with the last queue that is bound to it.
            let options = ExchangeDeclareOptions { auto_delete: true, ..ExchangeDeclareOptions::default() };
            let declared =
                channel.exchange_declare(name(exchange)?.into(), kind, options, FieldTable::default());
            declared.deadline("declare an exchange").await?;
        }
        let queue = name("dead")?;
        declare_queue(channel, &queue, QueueDeclareOptions::exclusive(), QueueType::Classic.arguments())
            .await?;
        bind(channel, &queue, &name("shop.dlx")?, "").await?;
        // The exchange goes with this queue, even if no other is ever bound to it.
        bind(channel, &queue, &name("shop")?, "nobody's order").await?;
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        let dead = consumer.deadline("register a consumer").await?;
        Ok(Self { session, args, run, dead })
    }

    pub(super) fn channel(&self) -> &Channel {
        &self.session.channel
    }

    /// A name as the broker knows it.
    pub(super) fn name(&self, short: &str) -> Result<String> {
        self.args.name(&format!("dead_letters.{}.{short}", self.run))
    }

    /// A name as the lesson calls it, the same in each run.
    fn short(&self, name: String) -> String {
        let start = format!("dead_letters.{}.", self.run);
        match name.split_once(&start) {
            Some((_prefix, short)) => short.to_owned(),
            None => name,
        }
    }

    /// Declares a classic queue for orders from the shop, with these arguments.
    pub(super) async fn queue(&self, name: &str, arguments: &[(&str, AMQPValue)]) -> Result<()> {
        self.queue_of(QueueType::Classic, QueueDeclareOptions::exclusive(), name, arguments).await
    }

    /// Declares a quorum queue for orders from the shop. It cannot be exclusive: delete it afterwards.
    pub(super) async fn quorum_queue(&self, name: &str, arguments: &[(&str, AMQPValue)]) -> Result<()> {
        self.queue_of(QueueType::Quorum, QueueDeclareOptions::durable(), name, arguments).await
    }

    async fn queue_of(
        &self,
        queue_type: QueueType,
        options: QueueDeclareOptions,
        name: &str,
        arguments: &[(&str, AMQPValue)],
    ) -> Result<()> {
        let mut table = queue_type.arguments();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        declare_queue(self.channel(), &self.name(name)?, options, table).await?;
        bind(self.channel(), &self.name(name)?, &self.name("shop")?, name).await
    }

    /// The arguments that make `shop.dlx` a queue's dead-letter exchange.
    pub(super) fn dead_letter_exchange(&self) -> Result<(&'static str, AMQPValue)> {
        Ok(("x-dead-letter-exchange", text(&self.name("shop.dlx")?)))
    }

    /// Sends an order through the shop, whose routing keys are the short names of the queues.
    pub(super) async fn order(&self, queue: &str, order: &str) -> Result<()> {
        self.send("shop", queue, order, BasicProperties::default()).await
    }

    /// Sends an order that has a time to live of its own.
    pub(super) async fn order_with_ttl(&self, queue: &str, order: &str, ttl: Duration) -> Result<()> {
        let properties = BasicProperties::default().with_expiration(ttl::of_message(ttl));
        self.send("shop", queue, order, properties).await
    }

    /// Sends a dead letter through the shop once more, with all that it carries.
    pub(super) async fn order_with(&self, queue: &str, dead: &Delivery) -> Result<()> {
        let properties = dead.properties.clone();
        publish(self.channel(), &self.name("shop")?, queue, &dead.data, properties).await
    }

    /// Sends an order straight to a queue.
    pub(super) async fn order_to_queue(&self, queue: &str, order: &str) -> Result<()> {
        publish(self.channel(), "", &self.name(queue)?, order.as_bytes(), BasicProperties::default()).await
    }

    async fn send(&self, exchange: &str, key: &str, order: &str, properties: BasicProperties) -> Result<()> {
        publish(self.channel(), &self.name(exchange)?, key, order.as_bytes(), properties).await
    }

    /// Starts a consumer whose messages have to be acknowledged or rejected.
    pub(super) async fn consume(&self, queue: &str) -> Result<Consumer> {
        let consumer = self.channel().basic_consume(
            self.name(queue)?.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        consumer.deadline("register a consumer").await
    }

    pub(super) async fn cancel(&self, consumer: &Consumer) -> Result<()> {
        let cancel = self.channel().basic_cancel(consumer.tag(), BasicCancelOptions::default());
        cancel.deadline("cancel the consumer").await
    }

    /// The consumer's next message, which must come.
    pub(super) async fn next(&self, consumer: &mut Consumer) -> Result<Delivery> {
        soon(self.session.next(consumer)).await
    }

    /// The next dead letter, which must come.
    pub(super) async fn dead_letter(&mut self) -> Result<Delivery> {
        soon(self.session.next(&mut self.dead)).await
    }

    /// Makes sure that no dead letter came: the next thing behind `shop.dlx` is what is put there now.
    pub(super) async fn no_dead_letter(&mut self) -> Result<()> {
        self.send("shop.dlx", "", "nothing died", BasicProperties::default()).await?;
        let next = self.dead_letter().await?;
        expect(next.data == b"nothing died", "a message was dead-lettered")
    }

    /// Rejects a message, back to its queue or for good.
    pub(super) async fn reject(&self, delivery: &Delivery, requeue: bool) -> Result<()> {
        let rejected = self.channel().basic_reject(delivery.delivery_tag, BasicRejectOptions { requeue });
        rejected.deadline("reject a message").await
    }

    /// Puts a message back with `basic.nack`.
    pub(super) async fn nack(&self, delivery: &Delivery) -> Result<()> {
        let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
        let nacked = self.channel().basic_nack(delivery.delivery_tag, options);
        nacked.deadline("put a message back").await
    }

    /// The consumer's next message, or `None` if it became a dead letter instead; one of both must come.
    pub(super) async fn next_unless_dead(&mut self, consumer: &mut Consumer) -> Result<Option<Delivery>> {
        let next = async {
            tokio::select! {
                delivery = self.session.next(consumer) => delivery.map(|delivery| delivery.map(Some)),
                dead = self.session.next(&mut self.dead) => dead.map(|dead| dead.map(|_| None)),
            }
        };
        match timeout(PATIENCE, next).await {
            Ok(next) => next?.ok_or(Error::Stopped),
            Err(_) => Err(unexpected("the message did not come")),
        }
    }

    /// Waits until no message is left in a queue.
    pub(super) async fn wait_until_empty(&self, queue: &str) -> Result<()> {
        let empty = async {
            while self.messages_in(queue).await? > 0 {
                sleep(LOOK_INTERVAL).await;
            }
            Ok(())
        };
        timeout(PATIENCE, empty).await.unwrap_or_else(|_| Err(unexpected("the message stays in its queue")))
    }

    /// Waits until a queue is gone. To look at it with a declaration would keep it from expiring.
    pub(super) async fn wait_until_gone(&self, queue: &str) -> Result<()> {
        let gone = async {
            loop {
                match self.order_to_queue(queue, "anybody there?").await {
                    Ok(()) => sleep(LOOK_INTERVAL).await,
                    Err(Error::Returned { .. }) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        };
        timeout(PATIENCE, gone).await.unwrap_or_else(|_| Err(unexpected("the queue does not expire")))
    }

    /// How many messages are in a queue, without those that a consumer has in hand.
    pub(super) async fn messages_in(&self, queue: &str) -> Result<u32> {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.name(queue)?;
        let seen = declare_queue(self.channel(), &queue, passive, FieldTable::default()).await?;
        Ok(seen.message_count())
    }

    /// A message's history: one line for each entry, without the prefix and the time, which differ.
    pub(super) fn history(&self, delivery: &Delivery) -> Vec<String> {
        let deaths = XDeath::of(&delivery.properties).deaths;
        deaths.into_iter().map(|death| self.shortened(death).to_string()).collect()
    }

    fn shortened(&self, death: Death) -> Death {
        tracing::debug!("{death}");
        Death {
            queue: death.queue.map(|queue| self.short(queue)),
            exchange: death.exchange.map(|exchange| self.short(exchange)),
            routing_keys: death.routing_keys.into_iter().map(|key| self.short(key)).collect(),
            time: None,
            ..death
        }
    }
}

/// What must come soon.
async fn soon(next: impl Future<Output = Result<Option<Delivery>>>) -> Result<Delivery> {
    match timeout(PATIENCE, next).await {
        Ok(next) => next?.ok_or(Error::Stopped),
        Err(_) => Err(unexpected("the message did not come")),
    }
}

async fn bind(channel: &Channel, queue: &str, exchange: &str, key: &str) -> Result<()> {
    let options = QueueBindOptions::default();
    let binding =
        channel.queue_bind(queue.into(), exchange.into(), key.into(), options, FieldTable::default());
    binding.deadline("bind a queue").await
}

/// An error unless the broker did what the lesson says.
pub(super) fn expect(as_taught: bool, otherwise: &'static str) -> Result<()> {
    if as_taught { Ok(()) } else { Err(unexpected(otherwise)) }
}

fn unexpected(otherwise: &'static str) -> Error {
    Error::own(format!("this broker behaves otherwise: {otherwise}"))
}
