//! Brokers in trouble: out of memory, stopped, killed. Each test breaks a node of its own.

use std::time::{Duration, Instant};

use anyhow::Result;
use broker::Node;
use lapin::BasicProperties;
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use shared::{Connection, ConnectionArgs, Deadline, Error, Message, Outcome, Publisher, Shutdown, State};
use tokio::sync::mpsc;
use tokio::task::block_in_place;

use crate::support::{consume, within};

fn message() -> Message<'static> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    Message { exchange: "", routing_key: "q", mandatory: true, properties, body: b"body" }
}

async fn declare(connection: &Connection) -> shared::Result<()> {
    let declare = connection.session(async |session| {
        let queue =
            session.channel.queue_declare("q".into(), QueueDeclareOptions::durable(), FieldTable::default());
        queue.deadline("declare a queue").await
    });
    declare.await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memory_alarm_blocks_publishing_visibly_and_nothing_else() -> Result<()> {
    let node = block_in_place(Node::start)?;
    let args = ConnectionArgs::for_url(node.url());
    let shutdown = Shutdown::new();
    let publishing = Connection::open(&args, "publishing", &shutdown).await?;
    let consuming = Connection::open(&args, "consuming", &shutdown).await?;
    declare(&consuming).await?;
    let publisher = Publisher::new(&publishing, 1).with_deadline(Duration::from_secs(2));
    assert!(matches!(publisher.publish(&message()).await, Outcome::Confirmed));

    block_in_place(|| node.memory_alarm(true))?;
    // The first message goes out before the broker says that it takes none; the second never does.
    let outcome = publisher.publish(&message()).await;
    assert!(
        matches!(&outcome, Outcome::Unknown(Error::Blocked { reason, .. }) if reason == "low on memory"),
        "{outcome:?}"
    );
    let outcome = publisher.publish(&message()).await;
    assert!(matches!(&outcome, Outcome::NotSent(Error::Blocked { .. })), "{outcome:?}");
    assert!(matches!(*publishing.state().borrow(), State::Blocked { generation: 1, .. }));

    let get = consuming.session(async |session| {
        session
            .channel
            .basic_get("q".into(), BasicGetOptions { no_ack: true })
            .deadline("get a message")
            .await
    });
    assert!(get.await?.is_some(), "the consuming connection is not blocked");

    block_in_place(|| node.memory_alarm(false))?;
    within(publishing.state().wait_for(|state| matches!(state, State::Up { generation: 1 }))).await?;
    assert!(matches!(publisher.publish(&message()).await, Outcome::Confirmed));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_and_then_a_killed_broker_are_noticed_and_come_back_with_their_messages() -> Result<()> {
    let node = block_in_place(Node::start)?;
    let args = ConnectionArgs::for_url(format!("{}?heartbeat=1&connection_timeout=1000", node.url()));
    let shutdown = Shutdown::new();
    let connection = Connection::open(&args, "faults", &shutdown).await?;
    declare(&connection).await?;
    let (ready, mut is_ready) = mpsc::unbounded_channel();
    let session = connection.session(async |session| {
        let mut consumer = consume(&session.channel, "amq.rabbitmq.reply-to").await?;
        let _ = ready.send(());
        while session.next(&mut consumer).await?.is_some() {}
        Ok(())
    });
    let steps = async {
        within(is_ready.recv()).await;

        block_in_place(|| node.pause())?;
        let start = Instant::now();
        within(connection.state().wait_for(|state| matches!(state, State::Reconnecting { .. }))).await?;
        // Two heartbeats of silence, and the time to notice.
        assert!(start.elapsed() < Duration::from_secs(6), "{:?}", start.elapsed());
        block_in_place(|| node.resume())?;
        within(is_ready.recv()).await;

        let publisher = Publisher::new(&connection, 1);
        for _ in 0..20 {
            assert!(matches!(publisher.publish(&message()).await, Outcome::Confirmed));
        }
        block_in_place(|| node.write_out())?;
        block_in_place(|| node.kill())?;
        within(connection.state().wait_for(|state| matches!(state, State::Reconnecting { .. }))).await?;
        block_in_place(|| node.restart())?;
        within(is_ready.recv()).await;
        let count = connection.session(async |session| {
            let options = QueueDeclareOptions::durable().passive();
            let queue = session.channel.queue_declare("q".into(), options, FieldTable::default());
            Ok(queue.deadline("look at a queue").await?.message_count())
        });
        assert_eq!(count.await?, 20, "confirmed messages survive");
        shutdown.request();
        anyhow::Ok(())
    };
    let (ended, steps) = tokio::join!(session, steps);
    steps?;
    ended?;
    Ok(())
}
