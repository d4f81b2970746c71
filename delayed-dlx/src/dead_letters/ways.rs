//! The four ways to die.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::QueueDeleteOptions;
use lapin::types::AMQPValue;
use shared::{Deadline, Result};

use super::stage::{Stage, expect};

pub(super) async fn rejected(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    stage.queue("orders", &[stage.dead_letter_exchange()?]).await?;
    let mut orders = stage.consume("orders").await?;
    stage.order("orders", "order 1").await?;
    let order = stage.next(&mut orders).await?;
    stage.reject(&order, false).await?;
    let dead = stage.dead_letter().await?;
    Ok(stage.history(&dead))
}

pub(super) async fn expired(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    stage.queue("orders", &[stage.dead_letter_exchange()?]).await?;
    stage.order_with_ttl("orders", "order 1", Duration::from_millis(100)).await?;
    let dead = stage.dead_letter().await?;
    expect(dead.properties.expiration().is_none(), "the property expiration is still there")?;
    let mut lines = stage.history(&dead);
    lines.push("the property expiration is gone: it would expire again in the next queue".to_owned());
    Ok(lines)
}

pub(super) async fn maxlen(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    let one = AMQPValue::LongLongInt(1);
    stage.queue("orders", &[stage.dead_letter_exchange()?, ("x-max-length", one)]).await?;
    stage.order("orders", "order 1").await?;
    stage.order("orders", "order 2").await?;
    let dead = stage.dead_letter().await?;
    expect(dead.data == b"order 1", "it was not the oldest message that died")?;
    Ok(stage.history(&dead))
}

/// Quorum queues: how often a message may come back, when it is rejected, when it is nacked, and by default.
const QUORUM_QUEUES: [(&str, Option<i64>); 3] =
    [("orders", Some(2)), ("nacked", Some(2)), ("unlimited", None)];

pub(super) async fn delivery_limit(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    for (queue, limit) in QUORUM_QUEUES {
        let mut arguments = vec![stage.dead_letter_exchange()?];
        arguments.extend(limit.map(|limit| ("x-delivery-limit", AMQPValue::LongLongInt(limit))));
        stage.quorum_queue(queue, &arguments).await?;
    }
    let seen = run_into_limits(stage).await;
    // Quorum queues cannot be exclusive, and cannot expire before RabbitMQ 3.10: these have to be deleted.
    for (queue, _) in QUORUM_QUEUES {
        let deleted = stage.channel().queue_delete(stage.name(queue)?.into(), QueueDeleteOptions::default());
        let deleted = deleted.deadline("delete a queue").await;
        if seen.is_ok() {
            deleted?;
        }
    }
    seen
}

async fn run_into_limits(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    let mut lines = run_into_the_limit(stage, "orders").await?;
    // What differs between versions: the broker shows which it is.
    lines.push(does_nack_count(stage, "nacked").await?);
    lines.push(is_there_a_default(stage, "unlimited").await?);
    Ok(lines)
}

async fn run_into_the_limit(stage: &mut Stage<'_>, queue: &str) -> Result<Vec<String>> {
    let mut orders = stage.consume(queue).await?;
    stage.order(queue, "order 1").await?;
    // The limit is how often it may come back after the first delivery.
    for _ in 0..3 {
        let order = stage.next(&mut orders).await?;
        stage.reject(&order, true).await?;
    }
    // In time: to cancel a consumer of a quorum queue that is gone breaks a channel of RabbitMQ before 3.11.
    stage.cancel(&orders).await?;
    let dead = stage.dead_letter().await?;
    let mut lines = stage.history(&dead);
    lines.push("with x-delivery-limit=2 it was delivered 3 times".to_owned());
    Ok(lines)
}

async fn does_nack_count(stage: &mut Stage<'_>, queue: &str) -> Result<String> {
    Ok(match deliveries(stage, queue, async |stage, order| stage.nack(order).await).await? {
        Some(deliveries) => {
            format!("put back with basic.nack instead of basic.reject it was delivered {deliveries} times")
        }
        None => format!(
            "put back with basic.nack instead of basic.reject it came {MANY} times and goes on: since RabbitMQ 4.3 \
             that does not count"
        ),
    })
}

async fn is_there_a_default(stage: &mut Stage<'_>, queue: &str) -> Result<String> {
    Ok(match deliveries(stage, queue, async |stage, order| stage.reject(order, true).await).await? {
        Some(deliveries) => {
            format!(
                "without x-delivery-limit it was delivered {deliveries} times: since RabbitMQ 4.0 there is a default"
            )
        }
        None => format!(
            "without x-delivery-limit it came {MANY} times and goes on: before RabbitMQ 4.0 there is no default"
        ),
    })
}

/// More often than any default limit lets a message come back.
const MANY: u32 = 30;

/// How often a message is delivered that is put back each time, until it dies; `None`: it does not, after [`MANY`].
async fn deliveries(
    stage: &mut Stage<'_>,
    queue: &str,
    put_back: impl AsyncFn(&Stage<'_>, &Delivery) -> Result<()>,
) -> Result<Option<u32>> {
    let mut orders = stage.consume(queue).await?;
    stage.order(queue, "order 1").await?;
    for delivered in 0..MANY {
        match stage.next_unless_dead(&mut orders).await? {
            Some(order) => put_back(stage, &order).await?,
            None => {
                stage.cancel(&orders).await?;
                return Ok(Some(delivered));
            }
        }
    }
    stage.cancel(&orders).await?;
    Ok(None)
}
