//! The crate against a real RabbitMQ: what a node does, survives, and leaves behind.

mod faults;
mod leftovers;
mod program;
mod sharing;
mod support;
mod tls;
