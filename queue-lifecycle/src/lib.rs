//! How queues are declared, checked, filled, purged and deleted, and what messages carry.
//!
//! Each program of this crate is a lesson on one subject: it does one thing after the other and prints what
//! the broker answers. What they have in common is here, mostly one of AMQP's calls to a function:
//!
//! - [`declare`], [`inspect`], [`purge`], [`delete`] for queues, and [`Arguments`] for what they can do;
//! - [`publish`], [`drain`] and [`next`] for messages, and [`describe`] for what is in one;
//! - [`attempt`] and [`refused`] for the things that a broker does not allow.
//!
//! The lessons use queues that the broker names and deletes with the connection, so that they leave nothing
//! behind and two of them can run side by side.

mod arguments;
mod message;
mod queue;
mod refusal;

pub use arguments::{Arguments, Overflow};
pub use message::{all_properties, bodies, consume, describe, drain, next, publish};
pub use queue::{Counts, anonymous, declare, delete, inspect, purge};
pub use refusal::{Refusal, attempt, refused};
