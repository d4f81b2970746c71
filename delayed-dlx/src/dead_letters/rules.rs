//! The rules around dying.

use std::time::Duration;

use lapin::types::AMQPValue;
use shared::{Error, Result};
use tokio::time::{Instant, sleep};

use super::stage::{Stage, expect};
use crate::amqp::text;
use crate::ttl;
use crate::x_death::{Reason, XDeath};

const SHORT: Duration = Duration::from_millis(200);
/// Longer than a slow broker takes to bind the queue and to take a message.
const EXPIRY: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(30);

pub(super) async fn smaller_ttl(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (queue, of_queue, of_message) in [("short-lived", SHORT, LONG), ("long-lived", LONG, SHORT)] {
        let ttl = ("x-message-ttl", ttl::of_queue(of_queue));
        stage.queue(queue, &[stage.dead_letter_exchange()?, ttl]).await?;
        let sent = Instant::now();
        stage.order_with_ttl(queue, "order 1", of_message).await?;
        stage.dead_letter().await?;
        let lived = sent.elapsed();
        tracing::debug!("queue {of_queue:?}, message {of_message:?}: lived for {lived:?}");
        expect(lived >= SHORT, "the message died too soon")?;
        expect(lived < LONG, "the longer one counted")?;
        lines.push(format!("queue {of_queue:?}, message {of_message:?}: dead after {SHORT:?}"));
    }
    Ok(lines)
}

pub(super) async fn queue_expiry(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    let expires = ("x-expires", ttl::of_queue(EXPIRY));
    stage.queue("orders", &[stage.dead_letter_exchange()?, expires]).await?;
    stage.order("orders", "order 1").await?;
    stage.wait_until_gone("orders").await?;
    stage.no_dead_letter().await?;
    Ok(vec![format!("x-expires={}: the queue is gone, no message was dead-lettered", EXPIRY.as_millis())])
}

pub(super) async fn routing_key(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    let ttl = || ("x-message-ttl", ttl::of_queue(Duration::from_millis(1)));
    stage.queue("orders", &[stage.dead_letter_exchange()?, ttl()]).await?;
    stage.order("orders", "order 1").await?;
    let kept = stage.dead_letter().await?;
    let key = ("x-dead-letter-routing-key", text("unpaid"));
    stage.queue("others", &[stage.dead_letter_exchange()?, ttl(), key]).await?;
    stage.order("others", "order 2").await?;
    let replaced = stage.dead_letter().await?;
    Ok(vec![
        format!(
            "without it: published to the dead-letter exchange with the key {:?}",
            kept.routing_key.as_str()
        ),
        format!("with it: published with the key {:?}", replaced.routing_key.as_str()),
    ])
}

pub(super) async fn cycle(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    // The default exchange routes by the queue's name, which is the key that the message has.
    let to_itself = || ("x-dead-letter-exchange", text(""));
    stage.queue("expiring", &[to_itself(), ("x-message-ttl", ttl::of_queue(SHORT))]).await?;
    stage.order_to_queue("expiring", "order 1").await?;
    stage.wait_until_empty("expiring").await?;
    // Had it gone round, it would be there again.
    sleep(SHORT / 2).await;
    expect(stage.messages_in("expiring").await? == 0, "the message came round")?;

    stage.queue("rejecting", &[to_itself()]).await?;
    let mut orders = stage.consume("rejecting").await?;
    stage.order_to_queue("rejecting", "order 2").await?;
    let mut counts = Vec::new();
    for _ in 0..3 {
        let order = stage.next(&mut orders).await?;
        let history = XDeath::of(&order.properties);
        counts.push(history.count(&stage.name("rejecting")?, &Reason::Rejected));
        stage.reject(&order, false).await?;
    }
    Ok(vec![
        "expired in a queue that is its own dead-letter queue: dropped".to_owned(),
        format!("rejected there again and again: it comes back, with the counts {counts:?}"),
    ])
}

pub(super) async fn republished(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    let ttl = ("x-message-ttl", ttl::of_queue(Duration::from_millis(1)));
    stage.queue("orders", &[stage.dead_letter_exchange()?, ttl]).await?;
    stage.order("orders", "order 1").await?;
    let dead = stage.dead_letter().await?;
    // With all that it carries, x-death included.
    stage.order_with("orders", &dead).await?;
    let again = stage.dead_letter().await?;
    let count = XDeath::of(&again.properties).count(&stage.name("orders")?, &Reason::Expired);
    Ok(vec![match count {
        1 => "published again with its headers, it died with the count 1: since RabbitMQ 4.0 the broker begins anew"
            .to_owned(),
        count => format!(
            "published again with its headers, it died with the count {count}: before RabbitMQ 4.0 the broker goes on \
             counting"
        ),
    }])
}

pub(super) async fn missing_exchange(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    let ttl = || ("x-message-ttl", ttl::of_queue(Duration::from_millis(1)));
    stage.queue("without", &[ttl()]).await?;
    stage.order("without", "order 1").await?;
    stage.wait_until_empty("without").await?;
    let nowhere = ("x-dead-letter-exchange", text(&stage.name("nowhere")?));
    stage.queue("wrong", &[ttl(), nowhere]).await?;
    stage.order("wrong", "order 2").await?;
    stage.wait_until_empty("wrong").await?;
    Ok(vec![
        "a queue without x-dead-letter-exchange: deleted".to_owned(),
        "a queue whose dead-letter exchange does not exist: deleted, and there is no error".to_owned(),
    ])
}

pub(super) async fn reject_publish(stage: &mut Stage<'_>) -> Result<Vec<String>> {
    let one = ("x-max-length", AMQPValue::LongLongInt(1));
    let refuse = ("x-overflow", text("reject-publish"));
    stage.queue("orders", &[stage.dead_letter_exchange()?, one, refuse]).await?;
    stage.order("orders", "order 1").await?;
    let refused = stage.order("orders", "order 2").await;
    expect(matches!(refused, Err(Error::Nacked)), "the second message was taken")?;
    stage.no_dead_letter().await?;
    Ok(vec!["order 2 was refused (basic.nack), order 1 is still there".to_owned()])
}
