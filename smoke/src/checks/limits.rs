//! Queues with limits and with priorities.

use lapin::BasicProperties;
use queue_lifecycle::{Arguments, Overflow};
use shared::{Error, QueueType, Result};

use super::of_features;
use crate::check::{Check, Finding, fault, pass};
use crate::messages::{consume, expect_only, publish};
use crate::trial::{Trial, feature};

pub(super) const CHECKS: &[Check] = &[
    of_features("reject-publish", "a full queue refuses messages with basic.nack", |trial| {
        Box::pin(reject_publish(trial))
    }),
    of_features("max-length", "a full queue drops its oldest message", |trial| Box::pin(max_length(trial))),
    of_features("priority", "the most urgent message comes first", |trial| Box::pin(priority(trial))),
];

async fn reject_publish(trial: Trial) -> Result<Finding> {
    let bodies = ["one", "two", "three"].map(|what| trial.payload(what));
    let played = trial.alone(async |session| {
        let channel = &session.channel;
        let queue = trial.queue("full")?;
        trial.step("declare a queue");
        let arguments = Arguments::default().classic().max_length(2).overflow(Overflow::RejectPublish);
        feature(queue_lifecycle::declare(channel, &queue, QueueType::Exclusive.options(), arguments).await)?;
        for body in &bodies[..2] {
            publish(&trial, channel, "", &queue, body).await?;
        }
        match publish(&trial, channel, "", &queue, &bodies[2]).await {
            Err(Error::Nacked) => {}
            Ok(()) => {
                return Err(fault(
                    "a basic.nack for the third message in a queue of two",
                    "a confirm",
                    "look for a policy that changes max-length or overflow: rabbitmqctl list_policies -p {vhost}",
                ));
            }
            Err(error) => return Err(error),
        }
        let mut consumer = consume(&trial, channel, &queue).await?;
        expect_only(&trial, channel, &mut consumer, &bodies[..2]).await
    });
    played.await?;
    pass("the third message in a queue of two was refused")
}

async fn max_length(trial: Trial) -> Result<Finding> {
    let bodies = ["one", "two", "three"].map(|what| trial.payload(what));
    let played = trial.alone(async |session| {
        let channel = &session.channel;
        let queue = trial.queue("full")?;
        trial.step("declare a queue");
        let arguments = Arguments::default().classic().max_length(2);
        feature(queue_lifecycle::declare(channel, &queue, QueueType::Exclusive.options(), arguments).await)?;
        for body in &bodies {
            publish(&trial, channel, "", &queue, body).await?;
        }
        let mut consumer = consume(&trial, channel, &queue).await?;
        expect_only(&trial, channel, &mut consumer, &bodies[1..]).await
    });
    played.await?;
    pass("the oldest of three messages in a queue of two was dropped")
}

/// Priorities in the order of sending. None counts as 0.
const PRIORITIES: [Option<u8>; 4] = [None, Some(5), Some(9), Some(5)];

/// The order in which they come.
const ORDER: [usize; 4] = [2, 1, 3, 0];

async fn priority(trial: Trial) -> Result<Finding> {
    let bodies = PRIORITIES.map(|priority| trial.payload(&format!("{priority:?}")));
    let played = trial.alone(async |session| {
        let channel = &session.channel;
        let queue = trial.queue("urgent")?;
        trial.step("declare a queue");
        let arguments = Arguments::default().classic().max_priority(9);
        feature(queue_lifecycle::declare(channel, &queue, QueueType::Exclusive.options(), arguments).await)?;
        for (priority, body) in PRIORITIES.into_iter().zip(&bodies) {
            trial.step("get the broker's confirm for a message");
            let properties = match priority {
                Some(priority) => BasicProperties::default().with_priority(priority),
                None => BasicProperties::default(),
            };
            queue_lifecycle::publish(channel, "", &queue, properties, body.as_bytes()).await?;
        }
        let mut consumer = consume(&trial, channel, &queue).await?;
        let expected = ORDER.map(|at| bodies[at].clone());
        expect_only(&trial, channel, &mut consumer, &expected).await
    });
    played.await?;
    pass("4 messages, the most urgent first")
}
