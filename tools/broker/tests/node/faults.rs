//! What a test can do to a node of its own.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use broker::{Node, node};
use lapin::{Connection, ConnectionProperties};
use serde_json::{Value, json};

use crate::support::{answers, until};

/// One node for all of them, since a node takes as long to start as all of this takes.
#[test]
fn a_node_can_be_broken_and_mended() -> Result<()> {
    let own = Node::start()?;
    // The second node of this process, while the first one runs.
    ensure!(answers(&own) && answers(node()) && own.port() != node().port() && own.name() != node().name());
    let vhost = own.vhost()?;
    own.put(&format!("/api/queues/{}/kept", vhost.name()), &json!({"durable": true}))?;

    pausing(&own)?;
    alarming(&own)?;
    closing(&own)?;

    let url = own.url();
    own.write_out()?;
    let begin = Instant::now();
    own.kill()?;
    ensure!(begin.elapsed() < Duration::from_secs(5));
    ensure!(!own.is_running() && !answers(&own));
    ensure!(own.pause().is_err(), "a dead node cannot be paused");
    own.kill()?;
    own.restart()?;
    ensure!(own.is_running() && answers(&own) && own.url() == url);
    ensure!(vhost.queue("kept")?.is_some(), "a durable queue survives a crash");

    own.stop()?;
    ensure!(!own.is_running() && !answers(&own));
    own.restart()?;
    ensure!(vhost.queue("kept")?.is_some(), "a durable queue survives a restart");

    own.stop_app()?;
    ensure!(own.is_running() && !answers(&own));
    own.start_app()?;
    ensure!(answers(&own) && vhost.queue("kept")?.is_some());
    Ok(())
}

fn pausing(own: &Node) -> Result<()> {
    own.pause()?;
    ensure!(own.is_running() && !answers(own));
    own.resume()?;
    until("the node to answer", || Ok(answers(own)))
}

fn alarming(own: &Node) -> Result<()> {
    let alarms = || own.rabbitmqctl(&["-q", "eval", "rabbit_alarm:get_alarms()."]);
    ensure!(alarms()?.trim() == "[]");
    own.memory_alarm(true)?;
    ensure!(alarms()?.contains("memory"));
    own.memory_alarm(false)?;
    ensure!(alarms()?.trim() == "[]");
    Ok(())
}

fn closing(own: &Node) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let connection = Connection::connect(&own.url(), ConnectionProperties::default()).await?;
        own.close_all_connections("bye")?;
        ensure!(connection.create_channel().await.is_err());
        Ok(())
    })
}

#[test]
fn a_node_that_cannot_start_says_why() {
    let begin = Instant::now();
    let error = format!("{:#}", Node::builder().config("nonsense = 1").start().unwrap_err());
    assert!(error.contains("nonsense"), "{error}");
    assert!(error.contains("BOOT FAILED"), "{error}");
    assert!((2..40).contains(&error.lines().count()), "{error}");
    // It is not waited for in vain, which takes 90 s.
    assert!(begin.elapsed() < Duration::from_secs(85));
}

#[test]
fn a_port_that_was_asked_for_has_to_be_free() {
    let taken = node().port();
    for builder in [Node::builder().port(taken), Node::builder().management_port(taken)] {
        let error = builder.start().unwrap_err().to_string();
        assert_eq!(error, format!("port {taken} is taken; choose another one"));
    }
}

#[test]
fn a_path_of_the_api_is_checked() {
    let error = node().get("overview").map(|_: Value| ()).unwrap_err().to_string();
    assert!(error.contains("begins with /api/"), "{error}");
}
