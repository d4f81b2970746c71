//! What RabbitMQ takes away: still permitted, or refused.

use lapin::options::{BasicQosOptions, QueueDeclareOptions};
use shared::{Deadline, Result};

use super::of_features;
use super::queues::declare;
use crate::check::{Check, Finding, Stop, fault, pass};
use crate::messages::{consume, expect_only, publish, publish_all};
use crate::trial::{Trial, feature};

/// The first RabbitMQ that warns of these.
const WARNS: u32 = 4;

pub(super) const CHECKS: &[Check] = &[
    of_features("transient-queue", "a queue that is neither durable nor exclusive (deprecated)", |trial| {
        Box::pin(transient_queue(trial))
    }),
    of_features("global-qos", "one prefetch for all consumers of a channel (deprecated)", |trial| {
        Box::pin(global_qos(trial))
    }),
];

async fn transient_queue(trial: Trial) -> Result<Finding> {
    let bodies = [trial.payload("passing")];
    let played = trial.alone(async |session| {
        let channel = &session.channel;
        let queue = trial.queue("transient")?;
        trial.step("declare a queue");
        let options = QueueDeclareOptions::default();
        feature(queue_lifecycle::declare(channel, &queue, options, trial.expiring().classic()).await)?;
        publish(&trial, channel, "", &queue, &bodies[0]).await?;
        let mut consumer = consume(&trial, channel, &queue).await?;
        expect_only(&trial, channel, &mut consumer, &bodies).await?;
        trial.step("delete a queue");
        queue_lifecycle::delete(channel, &queue, Default::default()).await
    });
    played.await?;
    permitted(&trial)
}

async fn global_qos(trial: Trial) -> Result<Finding> {
    let bodies = ["one", "two"].map(|what| trial.payload(what));
    let played = trial.alone(async |session| {
        let channel = &session.channel;
        let queue = declare(&trial, channel, "shared").await?;
        trial.step("set QoS for the channel");
        let set = channel.basic_qos(1, BasicQosOptions { global: true });
        feature(set.deadline("set QoS").await)?;
        trial.step("register two consumers");
        let _first = queue_lifecycle::consume(channel, &queue, Default::default()).await?;
        let _second = queue_lifecycle::consume(channel, &queue, Default::default()).await?;
        publish_all(&trial, channel, &queue, &bodies).await?;
        trial.step("count what is in the queue");
        Ok(queue_lifecycle::inspect(channel, &queue).await?.ready)
    });
    match played.await? {
        1 => permitted(&trial),
        0 => {
            let what = "basic.qos with global=true is answered, but each consumer has a limit of its own";
            Err(Stop::Unsupported(what.to_owned()).into())
        }
        ready => Err(fault(
            "1 of 2 messages delivered",
            format!("{ready} left"),
            "rabbitmqctl list_consumers -p {vhost}",
        )),
    }
}

fn permitted(trial: &Trial) -> Result<Finding> {
    let broker = trial.run().broker.borrow();
    let warns = broker.as_ref().is_some_and(|broker| broker.is_rabbitmq_from(WARNS));
    match warns {
        true => Ok(Finding::Warn("permitted, but deprecated: RabbitMQ 4.3 and later refuse it".to_owned())),
        false => pass("permitted; RabbitMQ 4.3 and later refuse it"),
    }
}
