//! Work queues: tasks shared out among workers, none lost when a worker dies.
//!
//! Three settings work together. The queue is durable and each task persistent, so both survive a restart
//! of the broker. A worker acknowledges a task when its work is done, so a task whose worker dies is
//! delivered again. And a prefetch of 1 keeps the broker from sending a busy worker more than it has in
//! hand, so the next task goes to whoever is free.

use std::time::Duration;

use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer, Queue};
use shared::{Deadline, QueueType, Result, confirmed};
use tokio::time::sleep;

/// The queue's name, the same in every language's tutorial.
pub const QUEUE: &str = "task_queue";

/// The delivery mode of a message that the broker writes to disk.
const PERSISTENT: u8 = 2;

/// When the broker may forget a task that it has delivered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Acks {
    /// When its work is done: the worker acknowledges it then.
    #[default]
    AfterWork,
    /// A mistake to learn from: as soon as it is sent. A worker that dies loses all that it held.
    Automatic,
    /// A mistake to learn from: never, because the worker does not acknowledge. Finished tasks come back.
    Forgotten,
}

/// How long a task takes: a second for each dot in it.
#[must_use]
pub fn effort(task: &[u8]) -> Duration {
    let dots: u32 = task.iter().map(|&byte| u32::from(byte == b'.')).sum();
    Duration::from_secs(dots.into())
}

/// Declares the queue. Both sides do, so that either may start first: declaring is idempotent.
///
/// # Errors
/// [`shared::Error::Refused`] with 406 if the queue exists with other properties.
pub async fn declare(channel: &Channel, queue: &str, queue_type: QueueType) -> Result<Queue> {
    let declared = channel.queue_declare(queue.into(), queue_type.options(), queue_type.arguments());
    declared.deadline("declare a queue").await
}

/// Sends one task and returns once the broker has it safe: in the queue and, as it is persistent, on disk.
///
/// `message_id` lets a worker tell a task that was sent again from a new one.
///
/// # Errors
/// [`shared::Error::Returned`] if no such queue exists, [`shared::Error::Nacked`] if it is full.
pub async fn send(channel: &Channel, queue: &str, body: &str, message_id: &str) -> Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).deadline("switch on publisher confirms").await?;

    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let properties = BasicProperties::default()
        .with_content_type("text/plain".into())
        // A durable queue alone does not do it: without this a restart of the broker empties a classic one.
        .with_delivery_mode(PERSISTENT)
        .with_message_id(message_id.into());
    let published = channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
    let confirm = published.deadline("publish a message").await?;
    confirmed(confirm.deadline("get the broker's confirm").await?)
}

/// Starts a consumer that holds at most `prefetch` unacknowledged tasks.
///
/// With [`Acks::Automatic`] there are none to count, and the broker sends all that it has.
///
/// # Errors
/// [`shared::Error::Refused`] with the broker's reason.
pub async fn consume(channel: &Channel, queue: &str, prefetch: u16, acks: Acks) -> Result<Consumer> {
    // Before consuming: a consumer that exists already keeps its old limit.
    channel.basic_qos(prefetch, BasicQosOptions::default()).deadline("set QoS").await?;
    let options = BasicConsumeOptions { no_ack: acks == Acks::Automatic, ..BasicConsumeOptions::default() };
    let consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
    consumer.deadline("register a consumer").await
}

/// Does a task's work, then acknowledges it on the channel that it came on.
///
/// Dropping the future leaves the task unacknowledged: it is delivered again once its channel is closed.
///
/// # Errors
/// [`shared::Error::Refused`] if the channel is gone; the task is then delivered again, although it is done.
pub async fn work(channel: &Channel, task: &Delivery, acks: Acks) -> Result<()> {
    // Asleep, not blocked: the program goes on answering signals and noticing a lost connection.
    sleep(effort(&task.data)).await;
    if acks != Acks::AfterWork {
        return Ok(());
    }
    let acknowledged = channel.basic_ack(task.delivery_tag, BasicAckOptions::default());
    acknowledged.deadline("acknowledge a task").await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_dot_is_a_second_of_work() {
        for (task, seconds) in [(&b""[..], 0), (b"hello", 0), (b"a.", 1), (b".a.b.", 3), (b"\xff.\xfe", 1)] {
            assert_eq!(effort(task), Duration::from_secs(seconds), "{task:?}");
        }
    }
}
