//! The four reasons for which a message becomes a dead letter.

use std::time::Duration;

use delayed_dlx::x_death::{Death, Reason, XDeath};
use lapin::message::Delivery;
use lapin::options::{BasicCancelOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use queue_lifecycle::Arguments;
use shared::{Deadline, QueueType, Result, Session};

use super::durable::DurableQueue;
use super::exchanges::bind;
use super::of_patterns;
use super::patterns::declare_exchange;
use super::queues::declare;
use crate::check::{Check, Finding, fault, pass};
use crate::messages::{consume, consume_with, expect, expect_only, next, publish, same};
use crate::trial::{Trial, feature};

/// The time to live of what is to expire.
const TTL: Duration = Duration::from_millis(100);

/// How often a message may come back to the quorum queue.
const LIMIT: i64 = 2;

pub(super) const CHECKS: &[Check] = &[
    of_patterns("dead-rejected", "a rejected message is dead-lettered", |trial| Box::pin(rejected(trial))),
    Check {
        rests: TTL,
        ..of_patterns("dead-expired", "an expired message is dead-lettered", |trial| Box::pin(expired(trial)))
    },
    of_patterns("dead-maxlen", "a full queue dead-letters its oldest message", |trial| {
        Box::pin(maxlen(trial))
    }),
    of_patterns("dead-delivery-limit", "a quorum queue dead-letters what comes back too often", |trial| {
        Box::pin(delivery_limit(trial))
    }),
];

/// A queue whose dead letters go to another one, through an exchange.
struct Stage<'t> {
    trial: &'t Trial,
    channel: &'t Channel,
    queue: String,
    dead: Consumer,
}

impl<'t> Stage<'t> {
    /// Sets the stage around a queue that is declared with a dead-letter exchange.
    async fn set(
        trial: &'t Trial,
        session: &'t Session,
        declare_queue: impl AsyncFnOnce(Arguments) -> Result<String>,
    ) -> Result<Self> {
        let channel = &session.channel;
        let dead = declare(trial, channel, "dead").await?;
        let none = FieldTable::default;
        let exchange = declare_exchange(trial, channel, "dlx", ExchangeKind::Fanout, none()).await?;
        bind(channel, &dead, &exchange, "", none()).await?;
        let queue = declare_queue(Arguments::default().dead_letter_exchange(&exchange)).await?;
        let dead = consume(trial, channel, &dead).await?;
        Ok(Self { trial, channel, queue, dead })
    }

    async fn send(&self, body: &str) -> Result<()> {
        publish(self.trial, self.channel, "", &self.queue, body).await
    }

    async fn reject(&self, delivery: &Delivery, requeue: bool) -> Result<()> {
        self.trial.step("reject a message");
        let rejected = self.channel.basic_reject(delivery.delivery_tag, BasicRejectOptions { requeue });
        rejected.deadline("reject a message").await
    }

    /// Takes this message, and no other, as a dead letter, and checks what the broker wrote into it.
    async fn expect_dead(&mut self, body: &str, reason: Reason) -> Result<Finding> {
        let bodies = [body.to_owned()];
        let dead = expect_only(self.trial, self.channel, &mut self.dead, &bodies).await?;
        let [dead] = &dead[..] else { return pass("") };
        let next = "look for a policy that redirects dead letters: rabbitmqctl list_policies -p {vhost}";
        same(
            "the dead letter's routing key to stay",
            &self.queue.as_str(),
            &dead.routing_key.as_str(),
            next,
        )?;
        let history = XDeath::of(&dead.properties).deaths;
        let [Death { queue, reason: seen, count: 1, exchange, .. }] = &history[..] else {
            return Err(fault("one death in x-death", format!("{history:?}"), next));
        };
        let seen = (queue.as_deref(), seen.as_ref(), exchange.as_deref());
        same("in x-death", &(Some(&*self.queue), Some(&reason), Some("")), &seen, next)?;
        pass(format!("x-death: {reason}"))
    }
}

/// Plays with a classic queue that has further arguments.
async fn on_stage(
    trial: &Trial,
    more: impl Fn(Arguments) -> Arguments,
    play: impl AsyncFnOnce(&mut Stage<'_>) -> Result<Finding>,
) -> Result<Finding> {
    let played = trial.alone(async |session| {
        let classic = async |arguments: Arguments| {
            trial.step("declare a queue with a dead-letter exchange");
            let (queue, options) = (trial.queue("letters")?, QueueType::Exclusive.options());
            let arguments = more(arguments.classic());
            feature(queue_lifecycle::declare(&session.channel, &queue, options, arguments).await)?;
            Ok(queue)
        };
        let mut stage = Stage::set(trial, &session, classic).await?;
        play(&mut stage).await
    });
    played.await
}

async fn rejected(trial: Trial) -> Result<Finding> {
    let body = trial.payload("to be rejected");
    let played = on_stage(
        &trial,
        |arguments| arguments,
        async |stage| {
            let mut letters =
                consume_with(stage.trial, stage.channel, &stage.queue, 1, FieldTable::default()).await?;
            stage.send(&body).await?;
            let letter = expect(stage.trial, &mut letters, std::slice::from_ref(&body)).await?;
            stage.reject(&letter[0], false).await?;
            stage.expect_dead(&body, Reason::Rejected).await
        },
    );
    played.await
}

async fn expired(trial: Trial) -> Result<Finding> {
    let body = trial.payload("to expire");
    let played = on_stage(
        &trial,
        |arguments| arguments,
        async |stage| {
            stage.trial.step("get the broker's confirm for a message");
            let properties = BasicProperties::default().with_expiration(delayed_dlx::ttl::of_message(TTL));
            queue_lifecycle::publish(stage.channel, "", &stage.queue, properties, body.as_bytes()).await?;
            stage.expect_dead(&body, Reason::Expired).await
        },
    );
    played.await
}

async fn maxlen(trial: Trial) -> Result<Finding> {
    let bodies = ["old", "new"].map(|what| trial.payload(what));
    let played = on_stage(
        &trial,
        |arguments| arguments.max_length(1),
        async |stage| {
            for body in &bodies {
                stage.send(body).await?;
            }
            stage.expect_dead(&bodies[0], Reason::MaxLen).await
        },
    );
    played.await
}

async fn delivery_limit(trial: Trial) -> Result<Finding> {
    let body = trial.payload("poison");
    let played = trial.alone(async |session| {
        let mut durable = None;
        let quorum = async |arguments: Arguments| {
            let arguments = arguments.with("x-delivery-limit", AMQPValue::LongLongInt(LIMIT));
            let queue = DurableQueue::declare(&trial, "letters", "quorum", arguments).await?;
            Ok(durable.insert(queue).name.clone())
        };
        let mut stage = Stage::set(&trial, &session, quorum).await?;
        let stage = &mut stage;
        let mut letters = consume_with(&trial, stage.channel, &stage.queue, 1, FieldTable::default()).await?;
        stage.send(&body).await?;
        // The limit is how often it may come back after the first delivery.
        for _ in 0..=LIMIT {
            let letter = next(&trial, &mut letters).await?;
            stage.reject(&letter, true).await?;
        }
        // In time: to cancel a consumer of a quorum queue that is gone breaks a channel of RabbitMQ before 3.11.
        trial.step("cancel the consumer");
        let cancel = stage.channel.basic_cancel(letters.tag(), BasicCancelOptions::default());
        cancel.deadline("cancel the consumer").await?;
        let finding = stage.expect_dead(&body, Reason::DeliveryLimit).await;
        if let Some(durable) = durable {
            durable.delete(&trial, stage.channel).await?;
        }
        finding
    });
    played.await
}
