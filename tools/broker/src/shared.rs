//! The node that the harmless tests of a program share.

use std::env;
use std::sync::OnceLock;

use anyhow::{Context, Result};

use crate::node::Node;

/// The variable by which a process hands its node to the test programs that it runs; the value is
/// [`Node::description`].
pub const TEST_NODE: &str = "BROKER_TEST_NODE";

/// The shared node of this process: the one that [`TEST_NODE`] describes, else one that is started at the
/// first call and ends with the process.
///
/// # Panics
///
/// If there is no node and none can be started; the message says how to get RabbitMQ. A test without a broker
/// has to fail: one that is skipped looks like one that passed.
pub fn node() -> &'static Node {
    static NODE: OnceLock<Result<Node, String>> = OnceLock::new();
    // A failure is kept as well, so that it costs its time once and not for each test.
    match NODE.get_or_init(|| attach_or_start().map_err(|error| format!("{error:#}"))) {
        Ok(node) => node,
        Err(error) => panic!("no broker for the tests: {error}"),
    }
}

fn attach_or_start() -> Result<Node> {
    let node = match env::var(TEST_NODE) {
        Ok(description) if !description.is_empty() => Node::attach(&description)
            .with_context(|| format!("{TEST_NODE} is set, but describes no running node"))?,
        _ => Node::start()?,
    };
    Ok(node.into_shared())
}
