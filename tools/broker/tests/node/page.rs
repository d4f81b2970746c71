//! What the page shows of using a node in tests.

#[test]
fn a_test() -> anyhow::Result<()> {
    let vhost = broker::node().vhost()?; // a shared node, a vhost of one's own
    // … connect to vhost.url() and declare what is to be tested …
    assert!(vhost.queue("hello")?.is_none());
    Ok(())
}
