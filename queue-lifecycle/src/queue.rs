//! AMQP's calls about queues.

use std::fmt;

use lapin::options::{QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Queue};
use shared::{Deadline, Result};

use crate::Arguments;

/// How full a queue is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Counts {
    /// Messages that wait for a consumer. Those that a consumer has and has not acknowledged do not count.
    pub ready: u32,
    /// Consumers.
    pub consumers: u32,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "messages ready: {}, consumers: {}", self.ready, self.consumers)
    }
}

impl From<Queue> for Counts {
    fn from(queue: Queue) -> Self {
        Self { ready: queue.message_count(), consumers: queue.consumer_count() }
    }
}

/// Declares a queue: it is made, unless there is one with the same flags and arguments.
///
/// # Errors
/// [`shared::Error::Refused`] with 406 if one of that name exists with other flags or arguments, 405 if it
/// is another connection's own, 403 if the name begins with `amq.`, which is the broker's.
pub async fn declare(
    channel: &Channel,
    queue: &str,
    options: QueueDeclareOptions,
    arguments: Arguments,
) -> Result<Counts> {
    let declared = channel.queue_declare(queue.into(), options, arguments.table());
    Ok(declared.deadline("declare a queue").await?.into())
}

/// Declares a queue of this connection's own: the broker makes up its name, and deletes it with the
/// connection.
///
/// # Errors
/// [`shared::Error::Refused`] with 406 for arguments that make no sense.
pub async fn anonymous(channel: &Channel, arguments: Arguments) -> Result<String> {
    let declared = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), arguments.table());
    Ok(declared.deadline("declare a queue").await?.name().to_string())
}

/// Looks at a queue without making one: what AMQP calls a passive declare.
///
/// # Errors
/// [`shared::Error::Refused`] with 404 if there is none, 405 if it is another connection's own.
pub async fn inspect(channel: &Channel, queue: &str) -> Result<Counts> {
    // Only the name is looked at: the other flags and the arguments may be anything.
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
    Ok(declared.deadline("inspect a queue").await?.into())
}

/// Throws away the ready messages of a queue and says how many there were. Those that a consumer has and
/// has not acknowledged stay.
///
/// # Errors
/// [`shared::Error::Refused`] with 404 if there is no such queue.
pub async fn purge(channel: &Channel, queue: &str) -> Result<u32> {
    channel.queue_purge(queue.into(), QueuePurgeOptions::default()).deadline("purge a queue").await
}

/// Deletes a queue and says how many messages went with it. A queue that does not exist is deleted with 0.
///
/// # Errors
/// [`shared::Error::Refused`] with 406 if it has messages or consumers and the options ask to keep it then.
pub async fn delete(channel: &Channel, queue: &str, options: QueueDeleteOptions) -> Result<u32> {
    channel.queue_delete(queue.into(), options).deadline("delete a queue").await
}
