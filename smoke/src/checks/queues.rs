//! Kinds of queues, and what can be asked of a queue.

use futures_lite::StreamExt;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicGetOptions, BasicRejectOptions};
use lapin::types::{AMQPValue, FieldTable};
use queue_lifecycle::{Arguments, Counts};
use shared::{Deadline, Error, QueueType, Result};

use super::durable::DurableQueue;
use super::of_features;
use crate::check::{Check, Finding, fault, pass};
use crate::messages::{consume, consume_with, expect, expect_only, next, publish, publish_all, same};
use crate::trial::{Trial, feature};

pub(super) const CHECKS: &[Check] = &[
    of_features("single-active", "one of several consumers is active, and another takes over", |trial| {
        Box::pin(single_active(trial))
    }),
    of_features("quorum", "a quorum queue keeps order, and drops what comes back too often", |trial| {
        Box::pin(quorum_queue(trial))
    }),
    of_features("stream", "a stream can be read twice from its beginning", |trial| Box::pin(stream(trial))),
    of_features("consumer-cancel", "a consumer is told that its queue was deleted", |trial| {
        Box::pin(consumer_cancel(trial))
    }),
    of_features("get", "basic.get of a message, and of none", |trial| Box::pin(get(trial))),
    of_features("purge", "a purge says how many messages it threw away", |trial| Box::pin(purge(trial))),
    of_features("passive", "a passive declare counts, and misses what is not there", |trial| {
        Box::pin(passive(trial))
    }),
];

/// An exclusive classic queue.
pub(super) async fn declare(trial: &Trial, channel: &Channel, what: &str) -> Result<String> {
    let queue = trial.queue(what)?;
    trial.step("declare a queue");
    let options = QueueType::Exclusive.options();
    queue_lifecycle::declare(channel, &queue, options, Arguments::default().classic()).await?;
    Ok(queue)
}

async fn single_active(trial: Trial) -> Result<Finding> {
    let bodies = ["one", "two"].map(|what| trial.payload(what));
    let connection = trial.connect().await?;
    let played = trial.on(&connection, async |session| {
        let second = &session.channel;
        let queue = trial.queue("single")?;
        trial.step("declare a queue");
        let arguments =
            Arguments::default().classic().with("x-single-active-consumer", AMQPValue::Boolean(true));
        feature(queue_lifecycle::declare(second, &queue, QueueType::Exclusive.options(), arguments).await)?;
        let of_second = trial.on(&connection, async |session| {
            let first = &session.channel;
            let mut of_first = consume_with(&trial, first, &queue, 10, FieldTable::default()).await?;
            let of_second = consume_with(&trial, second, &queue, 10, FieldTable::default()).await?;
            for body in &bodies {
                publish(&trial, second, "", &queue, body).await?;
            }
            let taken = expect(&trial, &mut of_first, &bodies).await?;
            trial.step("acknowledge a message");
            let acknowledged = first.basic_ack(taken[0].delivery_tag, BasicAckOptions::default());
            acknowledged.deadline("acknowledge a message").await?;
            Ok(of_second)
        });
        let mut of_second = of_second.await?;
        // The first has gone with the second message in hand.
        let taken = expect(&trial, &mut of_second, &bodies[1..]).await?;
        same("redelivered:", &true, &taken[0].redelivered, "rabbitmq-diagnostics log_tail")
    });
    played.await?;
    pass("the second consumer took over")
}

/// How often a message may come back to the quorum queue.
const LIMIT: i64 = 1;

async fn quorum_queue(trial: Trial) -> Result<Finding> {
    let bodies = ["one", "two", "three"].map(|what| trial.payload(what));
    let played = trial.alone(async |session| {
        let channel = &session.channel;
        let limit = Arguments::default().with("x-delivery-limit", AMQPValue::LongLongInt(LIMIT));
        let durable = DurableQueue::declare(&trial, "quorum", "quorum", limit).await?;
        let queue = durable.name.clone();
        publish_all(&trial, channel, &queue, &bodies).await?;
        let mut consumer = consume_with(&trial, channel, &queue, 1, FieldTable::default()).await?;
        let (mut redelivered, mut accepted) = (0, Vec::new());
        // The first message is refused until it is dropped. A quorum queue may put it behind the others, whose order
        // stays.
        for _ in 0..4 {
            let message = next(&trial, &mut consumer).await?;
            let seen = String::from_utf8_lossy(&message.data).into_owned();
            redelivered += u32::from(message.redelivered);
            let refuse = seen == bodies[0];
            trial.step("acknowledge or reject a message");
            if refuse {
                let options = BasicRejectOptions { requeue: true };
                let rejected = channel.basic_reject(message.delivery_tag, options);
                rejected.deadline("reject a message").await?;
            } else {
                let acknowledged = channel.basic_ack(message.delivery_tag, BasicAckOptions::default());
                acknowledged.deadline("acknowledge a message").await?;
                accepted.push(seen);
            }
        }
        same("the other messages", &&bodies[1..], &&accepted[..], "something changes messages")?;
        same("redelivered messages:", &1, &redelivered, "rabbitmqctl list_policies -p {vhost}")?;
        let end = trial.payload("end mark");
        publish(&trial, channel, "", &queue, &end).await?;
        expect(&trial, &mut consumer, &[end]).await?;
        trial.step("cancel the consumer");
        let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
        cancel.deadline("cancel the consumer").await?;
        durable.delete(&trial, channel).await
    });
    played.await?;
    pass("dropped after 2 deliveries, as x-delivery-limit asks")
}

async fn stream(trial: Trial) -> Result<Finding> {
    let bodies = ["one", "two", "three"].map(|what| trial.payload(what));
    let played = trial.alone(async |session| {
        let channel = &session.channel;
        let durable = DurableQueue::declare(&trial, "stream", "stream", Arguments::default()).await?;
        let queue = durable.name.clone();
        publish_all(&trial, channel, &queue, &bodies).await?;
        for _ in 0..2 {
            let mut first = FieldTable::default();
            first.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
            let mut consumer = consume_with(&trial, channel, &queue, 10, first).await?;
            for delivery in expect(&trial, &mut consumer, &bodies).await? {
                trial.step("acknowledge a message");
                let acknowledged = channel.basic_ack(delivery.delivery_tag, BasicAckOptions::default());
                acknowledged.deadline("acknowledge a message").await?;
            }
            trial.step("cancel the consumer");
            let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
            cancel.deadline("cancel the consumer").await?;
        }
        durable.delete(&trial, channel).await
    });
    played.await?;
    pass("3 messages, read twice")
}

async fn consumer_cancel(trial: Trial) -> Result<Finding> {
    let played = trial.alone(async |session| {
        let channel = &session.channel;
        let queue = declare(&trial, channel, "doomed").await?;
        let mut consumer = consume(&trial, channel, &queue).await?;
        trial.step("delete a queue");
        queue_lifecycle::delete(channel, &queue, Default::default()).await?;
        trial.step("see the consumer end");
        match consumer.next().await {
            None => Ok(()),
            Some(Ok(_)) => {
                Err(fault("the end of the consumer", "a message", "rabbitmqctl list_bindings -p {vhost}"))
            }
            Some(Err(cause)) => Err(Error::Refused { step: "see the consumer end", cause }),
        }
    });
    played.await?;
    pass("")
}

async fn get(trial: Trial) -> Result<Finding> {
    let bodies = ["one", "two"].map(|what| trial.payload(what));
    let played = trial.alone(async |session| {
        let channel = &session.channel;
        let queue = declare(&trial, channel, "get").await?;
        publish_all(&trial, channel, &queue, &bodies).await?;
        for (left, expected) in [(1, Some(&bodies[0])), (0, Some(&bodies[1])), (0, None)] {
            trial.step("get a message with basic.get");
            let got = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true });
            let got = got.deadline("get a message").await?;
            let seen = got.as_ref().map(|got| String::from_utf8_lossy(&got.data).into_owned());
            same("from basic.get", &expected, &seen.as_ref(), "rabbitmqctl list_policies -p {vhost}")?;
            let ready = got.map_or(0, |got| got.message_count);
            same("messages behind it:", &left, &ready, "rabbitmqctl list_bindings -p {vhost}")?;
        }
        Ok(())
    });
    played.await?;
    pass("2 messages, then none")
}

async fn purge(trial: Trial) -> Result<Finding> {
    let bodies = ["one", "two", "three"].map(|what| trial.payload(what));
    let played = trial.alone(async |session| {
        let channel = &session.channel;
        let queue = declare(&trial, channel, "purged").await?;
        publish_all(&trial, channel, &queue, &bodies).await?;
        trial.step("purge a queue");
        let purged = queue_lifecycle::purge(channel, &queue).await?;
        same("messages purged:", &3, &purged, "rabbitmqctl list_policies -p {vhost}")?;
        let mut consumer = consume(&trial, channel, &queue).await?;
        expect_only(&trial, channel, &mut consumer, &[]).await
    });
    played.await?;
    pass("3 messages thrown away")
}

async fn passive(trial: Trial) -> Result<Finding> {
    let bodies = ["one", "two"].map(|what| trial.payload(what));
    let connection = trial.connect().await?;
    let missing = trial.name("missing")?;
    let played = trial.on(&connection, async |session| {
        let channel = &session.channel;
        let queue = declare(&trial, channel, "counted").await?;
        publish_all(&trial, channel, &queue, &bodies).await?;
        let counts = async || {
            trial.step("count what is in a queue");
            queue_lifecycle::inspect(channel, &queue).await
        };
        let next = "rabbitmqctl list_queues -p {vhost} name messages_ready consumers";
        same("before consuming", &Counts { ready: 2, consumers: 0 }, &counts().await?, next)?;
        let mut consumer = consume_with(&trial, channel, &queue, 1, FieldTable::default()).await?;
        expect(&trial, &mut consumer, &bodies[..1]).await?;
        same("with a consumer that holds one", &Counts { ready: 1, consumers: 1 }, &counts().await?, next)
    });
    played.await?;
    trial.step("miss a queue that is not there");
    let absent =
        trial.on(&connection, async |session| queue_lifecycle::inspect(&session.channel, &missing).await);
    match absent.await {
        Err(error) if error.code() == Some(404) => {
            pass("2 messages and 1 consumer counted; 404 for no queue")
        }
        Err(error) => Err(error),
        Ok(_) => {
            Err(fault("404 for a queue that is not there", "a queue", "rabbitmqctl list_queues -p {vhost}"))
        }
    }
}
