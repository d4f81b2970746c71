//! The firehose: every message that passes a vhost, as a trace.
//!
//! With tracing on, RabbitMQ publishes a copy of each message to the topic exchange `amq.rabbitmq.trace`:
//! one with the key `publish.EXCHANGE` when it comes in, and one with the key `deliver.QUEUE` for each
//! consumer that it goes out to. Headers of the copy say who, where and when. It is a message like any
//! other: who wants to see it binds a queue of his own, and what comes while no queue is bound is gone.
//!
//! Each message costs the broker up to three then, so tracing is off until somebody turns it on, per vhost
//! and node, with `rabbitmqctl trace_on` or through the management API ([`Control`]). It is off again after
//! a restart. Whether it is on, a client without access to either can find out by a [`probe`].
//!
//! The broker does not trace what comes from the trace exchange. Otherwise the delivery of a trace would be
//! traced, and the delivery of that one too.

mod control;
mod management;
pub mod probe;
mod record;
mod tail;
mod term;

pub use control::Control;
pub use management::{Management, ManagementError};
pub use record::{Event, Record};
pub use tail::{Filter, Seen, Tail};

/// Where the broker publishes its traces: a topic exchange in every vhost.
pub const EXCHANGE: &str = "amq.rabbitmq.trace";
