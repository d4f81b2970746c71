//! The four ways to die.

use std::time::Duration;

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

pub(super) async fn delivery_limit(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    let limit = ("x-delivery-limit", AMQPValue::LongLongInt(2));
    stage.quorum_queue("orders", &[stage.dead_letter_exchange()?, limit]).await?;
    let seen = run_into_the_limit(stage).await;
    // Quorum queues cannot be exclusive, and cannot expire before RabbitMQ 3.10: this one has to be deleted.
    let deleted = stage.channel().queue_delete(stage.name("orders")?.into(), QueueDeleteOptions::default());
    let deleted = deleted.deadline("delete a queue").await;
    let seen = seen?;
    deleted?;
    Ok(seen)
}

async fn run_into_the_limit(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    let mut orders = stage.consume("orders").await?;
    stage.order("orders", "order 1").await?;
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
