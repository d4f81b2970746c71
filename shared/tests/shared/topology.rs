//! Topology as data: what arrives on the broker, and what the broker says against it.

use std::time::Duration;

use anyhow::Result;
use lapin::ExchangeKind;
use serde_json::json;
use shared::{
    Binding, Connection, ConnectionArgs, Error, Exchange, Overflow, Queue, QueueType, Shutdown, Topology,
};

use crate::support::publish;

fn everything() -> Topology {
    Topology {
        exchanges: vec![
            Exchange::new("penalty", ExchangeKind::Direct),
            Exchange { auto_delete: true, ..Exchange::new("dead", ExchangeKind::Fanout) },
        ],
        queues: vec![
            Queue {
                message_ttl: Some(Duration::from_secs(60)),
                expires: Some(Duration::from_secs(3600)),
                max_length: Some(7),
                overflow: Some(Overflow::RejectPublish),
                dead_letter_exchange: Some("dead".to_owned()),
                dead_letter_routing_key: Some("late".to_owned()),
                max_priority: Some(5),
                ..Queue::new("full", QueueType::Classic)
            },
            Queue::new("casillas", QueueType::Quorum),
            Queue { lazy: true, ..Queue::new("lazy", QueueType::Classic) },
        ],
        bindings: vec![Binding::new("penalty", "casillas", "spain"), Binding::new("dead", "lazy", "")],
    }
}

#[tokio::test]
async fn what_is_declared_twice_is_there_once_with_just_the_arguments_asked_for() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let args = ConnectionArgs::for_url(vhost.url());
    let connection = Connection::open(&args, "topology", &Shutdown::new()).await?;
    everything().declare(&connection).await?;
    everything().declare(&connection).await?;

    let arguments = |queue: &str| anyhow::Ok(vhost.queue(queue)?.map(|queue| queue["arguments"].clone()));
    assert_eq!(arguments("casillas")?, Some(json!({"x-queue-type": "quorum"})));
    assert_eq!(arguments("lazy")?, Some(json!({"x-queue-type": "classic", "x-queue-mode": "lazy"})));
    let full = json!({
        "x-queue-type": "classic",
        "x-message-ttl": 60_000,
        "x-expires": 3_600_000,
        "x-max-length": 7,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "dead",
        "x-dead-letter-routing-key": "late",
        "x-max-priority": 5,
    });
    assert_eq!(arguments("full")?, Some(full));
    let exchange = broker::node().get(&format!("/api/exchanges/{}/penalty", vhost.name()))?;
    assert_eq!((&exchange["type"], &exchange["durable"]), (&json!("direct"), &json!(true)));
    let named = vhost.bindings()?.into_iter().filter(|binding| binding["source"] != "");
    assert_eq!(named.count(), 2);
    publish(&args, "penalty", "spain", "goal").await?;
    Ok(())
}

#[tokio::test]
async fn a_queue_is_of_its_type() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let connection =
        Connection::open(&ConnectionArgs::for_url(vhost.url()), "types", &Shutdown::new()).await?;
    for (queue_type, durable, exclusive, auto_delete) in [
        (QueueType::Quorum, true, false, false),
        (QueueType::Classic, true, false, false),
        (QueueType::Classic, true, false, true),
        (QueueType::Transient, false, false, false),
        (QueueType::Exclusive, false, true, false),
    ] {
        let name = format!("{queue_type:?} {auto_delete}");
        let queue = Queue { auto_delete, ..Queue::new(&name, queue_type) };
        let topology = Topology { queues: vec![queue], ..Topology::default() };
        match topology.declare(&connection).await {
            // RabbitMQ from 4.3 on has no transient queues unless they are permitted.
            Err(error) if queue_type == QueueType::Transient && error.code() == Some(541) => {
                assert!(error.hint().is_some_and(|hint| hint.contains("--queue-type")), "{error}");
                continue;
            }
            declared => declared?,
        }
        let queue = vhost.queue(&name)?.expect("declared");
        let flags = [&queue["durable"], &queue["exclusive"], &queue["auto_delete"]];
        assert_eq!(flags.map(|flag| *flag == true), [durable, exclusive, auto_delete], "{queue}");
    }
    Ok(())
}

#[tokio::test]
async fn another_declaration_of_what_exists_fails_at_once_and_names_the_argument() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let args = ConnectionArgs::for_url(vhost.url());
    let connection = Connection::open(&args, "mismatch", &Shutdown::new()).await?;
    everything().declare(&connection).await?;
    let queue = |queue| Topology { queues: vec![queue], ..Topology::default() };
    for (topology, words) in [
        (queue(Queue::new("lazy", QueueType::Classic)), "x-queue-mode"),
        (queue(Queue::new("casillas", QueueType::Classic)), "x-queue-type"),
        (queue(Queue { auto_delete: true, ..Queue::new("casillas", QueueType::Quorum) }), "auto_delete"),
        (
            queue(Queue {
                dead_letter_exchange: Some("dead".to_owned()),
                ..Queue::new("casillas", QueueType::Quorum)
            }),
            "x-dead-letter-exchange",
        ),
    ] {
        let error = topology.declare(&connection).await.expect_err(words);
        assert_eq!(error.code(), Some(406), "{error}");
        assert!(error.to_string().contains(words), "{words}: {error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_name_that_amqp_cannot_carry_is_a_usage_error() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let args = ConnectionArgs::for_url(vhost.url());
    let connection = Connection::open(&args, "long names", &Shutdown::new()).await?;
    let long = "x".repeat(256);
    for topology in [
        Topology { exchanges: vec![Exchange::new(&long, ExchangeKind::Direct)], ..Topology::default() },
        Topology { queues: vec![Queue::new(&long, QueueType::Classic)], ..Topology::default() },
        Topology { bindings: vec![Binding::new("amq.direct", "q", &long)], ..Topology::default() },
    ] {
        let error = topology.declare(&connection).await.expect_err("too long");
        assert!(matches!(error, Error::Usage(_)), "{error}");
    }
    Ok(())
}
