//! The node that tests share, and their vhosts.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::{env, thread};

use anyhow::Result;
use broker::{TEST_NODE, node};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::json;

use crate::support::{answers, until};

#[test]
fn the_shared_node_answers_and_says_where_it_is() -> Result<()> {
    assert!(answers(node()));
    assert_eq!(node().url(), format!("amqp://guest:guest@127.0.0.1:{}/%2f", node().port()));
    assert!(node().management_url().starts_with("http://127.0.0.1:"));
    assert_eq!(node().get("/api/overview")?["node"], node().name());
    assert!(node().rabbitmqctl(&["eval", "node()."])?.contains(node().name()));
    Ok(())
}

#[test]
fn a_vhost_is_empty_at_first_and_gone_after_its_drop() -> Result<()> {
    let vhost = node().vhost()?;
    let other = node().vhost()?;
    assert_ne!(vhost.name(), other.name());
    assert!(vhost.url().ends_with(&format!("@127.0.0.1:{}/{}", node().port(), vhost.name())));
    assert!(vhost.queues()?.is_empty() && vhost.bindings()?.is_empty());
    assert!(vhost.consumers()?.is_empty() && vhost.connections()?.is_empty());
    assert!(vhost.queue("none")?.is_none());

    let odd_name = "with/slash ü";
    node().put(&format!("/api/queues/{}/with%2Fslash%20%C3%BC", vhost.name()), &json!({"durable": true}))?;
    let queue = vhost.queue(odd_name)?.expect("it was declared");
    assert_eq!(queue["durable"], true);
    assert_eq!(queue["messages"], 0);
    assert_eq!(vhost.bindings()?[0]["routing_key"], odd_name);
    assert!(other.queues()?.is_empty());

    let path = format!("/api/vhosts/{}", vhost.name());
    assert_eq!(node().get(&path)?["name"], vhost.name());
    drop(vhost);
    let error = node().get(&path).unwrap_err().to_string();
    assert_eq!(error, format!("GET {path}: 404 Not Found"));
    Ok(())
}

#[tokio::test]
async fn what_a_vhost_tells_is_true_at_once() -> Result<()> {
    let vhost = node().vhost()?;
    let connection = Connection::connect(&vhost.url(), ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    for (name, kind) in [("c", "classic"), ("q", "quorum")] {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString(kind.into()));
        let durable = QueueDeclareOptions { durable: true, ..Default::default() };
        channel.queue_declare(name.into(), durable, arguments).await?;
        for _ in 0..3 {
            let publish = BasicPublishOptions::default();
            channel
                .basic_publish("".into(), name.into(), publish, b"x", BasicProperties::default())
                .await?
                .await?;
        }
    }
    // A synchronous call on the same channel: the messages before it have been routed.
    channel
        .queue_declare(
            "c".into(),
            QueueDeclareOptions { passive: true, ..Default::default() },
            FieldTable::default(),
        )
        .await?;
    assert_eq!(vhost.queue("c")?.expect("declared")["messages"], 3);
    let _consumer = channel
        .basic_consume("c".into(), "tag".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await?;
    let queues = vhost.queues()?;
    let of = |name: &str, field: &str| {
        queues.iter().find(|queue| queue["name"] == name).map(|queue| queue[field].clone())
    };
    assert_eq!(of("c", "consumers"), Some(json!(1)));
    assert_eq!(of("c", "messages_unacknowledged"), Some(json!(3)));
    assert_eq!(of("q", "messages_ready"), Some(json!(3)));
    assert_eq!(of("q", "type"), Some(json!("quorum")));
    assert_eq!(vhost.consumers()?[0]["consumer_tag"], "tag");
    Ok(())
}

#[tokio::test]
async fn only_the_connections_of_the_vhost_are_closed() -> Result<()> {
    let [vhost, other] = [node().vhost()?, node().vhost()?];
    let named = ConnectionProperties::default().with_connection_name("own name".into());
    let first = Connection::connect(&vhost.url(), named).await?;
    let second = Connection::connect(&vhost.url(), ConnectionProperties::default()).await?;
    let stays = Connection::connect(&other.url(), ConnectionProperties::default()).await?;
    let connections = vhost.connections()?;
    assert_eq!(connections.len(), 2);
    assert_eq!(connections[0]["user"], "guest");
    assert_eq!(connections[0]["client_properties"]["product"], "lapin");
    assert!(connections.iter().any(|connection| connection["user_provided_name"] == "own name"));
    assert_eq!(vhost.close_connections()?, 2);
    for closed in [first, second] {
        assert!(closed.create_channel().await.is_err());
    }
    stays.create_channel().await?;
    until("the connections to be gone", || Ok(vhost.connections()?.is_empty()))?;
    assert_eq!(other.connections()?.len(), 1);
    Ok(())
}

#[test]
fn the_shared_node_refuses_what_would_disturb_others() {
    let refused = [
        node().kill(),
        node().stop(),
        node().restart(),
        node().pause(),
        node().resume(),
        node().stop_app(),
        node().start_app(),
        node().memory_alarm(true),
        node().close_all_connections("bye"),
    ];
    for result in refused {
        let error = result.unwrap_err().to_string();
        assert!(error.contains("broker::Node::start()"), "{error}");
    }
    assert!(node().is_running());
}

#[test]
fn another_process_attaches_to_the_described_node() -> Result<()> {
    attaches(&node().description(), &node().url())
}

#[test]
fn one_bad_answer_keeps_nobody_from_attaching() -> Result<()> {
    let peer = TcpListener::bind("127.0.0.1:0")?;
    let (real, port) = (node().port(), peer.local_addr()?.port());
    thread::spawn(move || {
        drop(peer.accept());
        for mut stream in peer.incoming().flatten() {
            let _ = stream.read_exact(&mut [0; 8]);
            let _ = stream.write_all(&[1, 0, 0, 0, 0, 1, 255, 0, 10, 0, 10, 0, 9]);
        }
    });
    let [real_key, key] = [real, port].map(|port| format!("\"amqp\":{port},"));
    let description = node().description().replace(&real_key, &key);
    attaches(&description, &node().url().replace(&real.to_string(), &port.to_string()))
}

fn attaches(description: &str, url: &str) -> Result<()> {
    let output = Command::new(env::current_exe()?)
        .args(["--exact", "sharing::in_another_process", "--ignored", "--nocapture"])
        .env(TEST_NODE, description)
        .env("EXPECTED_URL", url)
        .output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[test]
#[ignore = "run by the tests that attach another process"]
fn in_another_process() -> Result<()> {
    assert_eq!(node().url(), env::var("EXPECTED_URL")?);
    assert!(node().is_running());
    let vhost = node().vhost()?;
    assert!(vhost.connections()?.is_empty());
    assert!(node().kill().is_err());
    Ok(())
}

#[test]
fn a_description_of_nothing_fails_the_test_and_says_so() -> Result<()> {
    let output = Command::new(env::current_exe()?)
        .args(["--exact", "sharing::in_another_process", "--ignored", "--nocapture"])
        .env(TEST_NODE, "nonsense")
        .output()?;
    let text = [output.stdout, output.stderr].concat();
    assert!(!output.status.success());
    assert!(
        String::from_utf8_lossy(&text).contains("BROKER_TEST_NODE is set, but describes no running node")
    );
    Ok(())
}
