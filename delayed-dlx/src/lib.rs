//! Delayed messages and dead letters.
//!
//! RabbitMQ has no "deliver later". It has two things that make one: a message or a queue can have a *time
//! to live*, and a queue can have a *dead-letter exchange*, to which the broker publishes what dies in it.
//! A message in a queue that nobody consumes dies when its time is up, and comes out of the dead-letter
//! exchange: late, as wanted.
//!
//! - [`orders`]: the delay. An order that is not paid in time is cancelled.
//! - [`ttl`]: how a time to live is written, which differs between queues and messages.
//! - [`x_death`]: what the broker writes into a dead message: where it died, of what, how often.
//! - [`dead_letters`]: every way to die, and the rules around it, each shown on a live broker.
//! - [`payments`]: a message whose handler always fails is tried a few times and then set aside.

mod amqp;
pub mod dead_letters;
pub mod orders;
pub mod payments;
pub mod ttl;
pub mod x_death;
