//! What kind of queue a named queue is declared as.

use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};

/// The `--queue-type` of every program that declares a named queue.
///
/// A broker refuses a declaration that differs from the existing queue's, so both sides of a pattern must
/// choose the same.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum QueueType {
    /// durable and replicated in a cluster; what the official tutorials declare
    #[default]
    Quorum,
    /// durable, on one node
    Classic,
    /// gone when the broker restarts; refused by RabbitMQ 4.3 and later
    Transient,
    /// Of this connection alone, and gone with it. For trials in one process, where nothing may stay on the
    /// broker; no choice on a command line.
    #[value(skip)]
    Exclusive,
}

impl QueueType {
    /// The flags to declare such a queue with.
    #[must_use]
    pub fn options(self) -> QueueDeclareOptions {
        match self {
            Self::Quorum | Self::Classic => QueueDeclareOptions::durable(),
            Self::Transient => QueueDeclareOptions::default(),
            Self::Exclusive => QueueDeclareOptions::exclusive(),
        }
    }

    /// The arguments to declare such a queue with. The type is always named, because a vhost may have
    /// another default.
    #[must_use]
    pub fn arguments(self) -> FieldTable {
        let queue_type = if self == Self::Quorum { "quorum" } else { "classic" };
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(queue_type.into()));
        arguments
    }
}
