//! What the page shows of using a node in tests.

use broker::Node;

#[test]
fn a_test() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?; // a shared node, a vhost of one's own
    // … connect to vhost.url() and declare what is to be tested …
    assert!(vhost.queue("hello")?.is_none());
    Ok(())
}

#[test]
fn a_test_that_breaks_the_broker() -> anyhow::Result<()> {
    let node = Node::start()?; // a node of one's own
    node.kill()?; // also: stop, pause, stop_app, memory_alarm, close_all_connections
    node.restart()?; // same ports, same data
    Ok(())
}
