//! Private, throw-away RabbitMQ nodes for demos and tests.
//!
//! A [`Node`] has its own name, ports, data, cookie and name service (epmd), listens on the loopback
//! interface only, and leaves neither a process nor a file behind, also when the program that started it
//! panics or is killed.
//!
//! Tests that do no harm to the broker share [`node()`] and take a [`Vhost`] each; a test that stops, kills
//! or pauses a node starts one of its own with [`Node::start`].
//!
//! A [`Cluster`] is several nodes that know each other: [`Builder::start_cluster`].
//!
//! All calls block, some for seconds. In an asynchronous test that needs its runtime meanwhile, run them on
//! another thread.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! let vhost = broker::node().vhost()?;
//! println!("connect to {}", vhost.url());
//! # Ok(()) }
//! ```

mod builder;
mod certificates;
mod cluster;
mod ctl;
mod epmd;
mod evaluate;
mod faults;
mod find;
mod guard;
mod management;
mod node;
mod output;
mod place;
mod ports;
mod probe;
mod root;
mod shared;
mod vhost;
mod vm;
mod wait;

pub use builder::{Builder, CONFIG};
pub use certificates::{Authority, CertificateFiles, Certificates, Identity};
pub use cluster::Cluster;
pub use find::{ROOT, Server, find_server};
pub use node::Node;
pub use ports::free_port;
pub use probe::speaks_amqp;
pub use shared::{TEST_NODE, node};
pub use vhost::Vhost;
