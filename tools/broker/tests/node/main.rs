//! The crate against a real RabbitMQ: what a node does, survives, and leaves behind.

mod cluster;
mod faults;
mod leftovers;
mod page;
mod program;
#[cfg(target_os = "linux")]
mod root;
mod sharing;
mod support;
mod tls;
