//! The server's side: take a request, compute, reply, and only then acknowledge.

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions, BasicRejectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use shared::{Deadline, Error, Message, Outcome, Publisher, QueueType, Result};

use crate::ERROR_TYPE;
use crate::fib::{fib, parse};

/// What a server consumes, and how.
#[derive(Clone, Debug)]
pub struct Server {
    /// The queue that requests come from.
    pub queue: String,
    /// What that queue is declared as.
    pub queue_type: QueueType,
    /// How many requests to take at once. 1 hands each request to the next free server.
    pub prefetch: u16,
}

/// Declares the request queue and starts a consumer on it.
///
/// # Errors
/// [`shared::Error::Refused`] with the broker's reason.
pub async fn consume(channel: &Channel, server: &Server) -> Result<Consumer> {
    let queue = || server.queue.as_str().into();
    let declared = channel.queue_declare(queue(), server.queue_type.options(), server.queue_type.arguments());
    declared.deadline("declare a queue").await?;
    channel.basic_qos(server.prefetch, BasicQosOptions::default()).deadline("set QoS").await?;
    let consumer =
        channel.basic_consume(queue(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    consumer.deadline("register a consumer").await
}

/// Answers one request: exactly one reply, then the acknowledgement. `computing` is told the number first.
///
/// A request that cannot be answered by anybody (no `reply_to`) is rejected for good, so that it does not
/// come back to kill every server in turn. A reply that the broker does not take, because the client is gone
/// or its queue is full, is dropped. A request whose reply may not have arrived for another reason goes back
/// to the queue and is answered again, which is why a procedure should be idempotent.
///
/// # Errors
/// [`shared::Error::Refused`] or [`shared::Error::Timeout`] if the broker does not take the
/// acknowledgement, [`shared::Error::Closed`] if there is no connection for replies any more; the request is
/// then delivered again.
pub async fn answer(
    request: Delivery,
    channel: &Channel,
    replies: &Publisher,
    computing: impl FnOnce(u64),
) -> Result<()> {
    let tag = request.delivery_tag;
    let Some(reply_to) = request.properties.reply_to().clone().filter(|queue| !queue.as_str().is_empty())
    else {
        tracing::warn!("a request without reply_to cannot be answered: rejected");
        let rejected = channel.basic_reject(tag, BasicRejectOptions { requeue: false });
        return rejected.deadline("reject a request").await;
    };
    let reply = reply(&request, computing);
    let message = Message {
        // Replies go through the default exchange, straight to the client's queue.
        exchange: "",
        routing_key: reply_to.as_str(),
        // A reply through direct reply-to passes no queue: the broker would return it though it arrived.
        mandatory: !reply_to.as_str().starts_with("amq.rabbitmq.reply-to."),
        properties: reply.properties,
        body: reply.body.as_bytes(),
    };
    match replies.publish(&message).await {
        Outcome::Confirmed => {}
        // Trying again would fail again, at once, and for every server in turn.
        Outcome::Returned { .. } => tracing::info!("the client of {reply_to} is gone: its reply is dropped"),
        Outcome::Nacked => tracing::warn!("the queue {reply_to} takes no more: the reply is dropped"),
        Outcome::NotSent(Error::Refused { cause, .. }) if cause.is_amqp_soft_error() => {
            tracing::warn!("the reply to {reply_to} is not allowed ({cause}): it is dropped");
        }
        Outcome::NotSent(error @ (Error::Closed(_) | Error::Stopped)) => return Err(error),
        Outcome::NotSent(error) | Outcome::Unknown(error) => {
            return requeue(tag, channel, &error.explain()).await;
        }
    }
    channel.basic_ack(tag, BasicAckOptions::default()).deadline("acknowledge a request").await
}

async fn requeue(tag: u64, channel: &Channel, why: &str) -> Result<()> {
    tracing::warn!("no confirmed reply ({why}): the request goes back to the queue");
    let options = BasicNackOptions { requeue: true, ..BasicNackOptions::default() };
    channel.basic_nack(tag, options).deadline("requeue a request").await
}

struct Reply {
    properties: BasicProperties,
    body: String,
}

/// Computes the reply to a request, whatever is in it.
fn reply(request: &Delivery, computing: impl FnOnce(u64)) -> Reply {
    let mut properties = BasicProperties::default().with_content_type("text/plain".into());
    if let Some(id) = request.properties.correlation_id() {
        properties = properties.with_correlation_id(id.clone());
    }
    let result = parse(&request.data).and_then(|n| {
        computing(n);
        fib(n)
    });
    match result {
        Ok(number) => Reply { properties, body: number.to_string() },
        Err(error) => {
            tracing::warn!("error reply: {error}");
            Reply { properties: properties.with_type(ERROR_TYPE.into()), body: error.to_string() }
        }
    }
}
