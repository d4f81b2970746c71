//! On [`shared::runtime`] lapin's thread waits for the socket itself. What is given to it meanwhile must not wait.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use futures_lite::StreamExt;
use harness::Relay;
use lapin::BasicProperties;
use lapin::options::{BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use shared::{
    Connection, ConnectionArgs, Consumer, Deadline, Message, Outcome, Publisher, Queue, QueueType, Shutdown,
    Topology, Verdict,
};
use tokio::time::timeout;

use crate::support::{args_through, consume, in_the_end, within};

/// Seconds between heartbeats.
const HEARTBEAT: u16 = 60;

/// How soon lapin's thread has to have seen something. Without being woken it would be half a heartbeat.
const SOON: Duration = Duration::from_secs(15);

/// Runs a test as a program runs.
pub(crate) fn run(test: impl Future<Output = Result<()>>) -> Result<()> {
    shared::runtime()?.block_on(async { in_the_end(test).await })
}

/// Runs a test that needs no more than a connection, as a program runs.
pub(crate) fn run_connected(name: &str, test: impl AsyncFnOnce(&Connection) -> Result<()>) -> Result<()> {
    let vhost = broker::node().vhost()?;
    run(async {
        let shutdown = Shutdown::new();
        let args = ConnectionArgs::for_url(vhost.url()).with_heartbeat(HEARTBEAT);
        let connection = Connection::open(&args, name, &shutdown).await?;
        test(&connection).await?;
        shutdown.close_connections().await;
        Ok(())
    })
}

pub(crate) fn queue() -> Topology {
    Topology { queues: vec![Queue::new("q", QueueType::Classic)], ..Topology::default() }
}

pub(crate) fn message(body: &[u8]) -> Message<'_> {
    Message { exchange: "", routing_key: "q", mandatory: true, properties: BasicProperties::default(), body }
}

pub(crate) async fn never_resting() {
    loop {
        tokio::task::yield_now().await;
    }
}

/// Single messages, each confirmed before the next.
pub(crate) async fn messages_pass_soon(connection: &Connection) -> Result<()> {
    let publisher = Publisher::new(connection, 1).with_topology(queue());
    for _ in 0..5 {
        let outcome = timeout(SOON, publisher.publish(&message(b"in between"))).await?;
        assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
    }
    Ok(())
}

/// More than lapin's buffers and the socket's hold, there and back; RabbitMQ 4 takes no more than 16 MiB.
pub(crate) async fn a_large_message_passes(connection: &Connection) -> Result<()> {
    let body: Vec<u8> = (0..15 << 20_u32).map(|place| (place % 251) as u8).collect();
    let publisher = Publisher::new(connection, 1).with_topology(queue());
    let outcome = within(publisher.publish(&message(&body))).await;
    assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
    let received = connection.session(async |session| {
        let mut consumer = consume(&session.channel, "q").await?;
        session.next(&mut consumer).await
    });
    let received = within(received).await?.expect("nobody asked it to stop");
    assert!(received.data == body, "{} of {} bytes", received.data.len(), body.len());
    Ok(())
}

#[test]
fn a_message_larger_than_all_buffers_goes_and_comes_back() -> Result<()> {
    run_connected("large", a_large_message_passes)
}

#[test]
fn two_connections_on_one_thread_wake_each_other() -> Result<()> {
    let vhost = broker::node().vhost()?;
    run(async {
        let (args, shutdown) = (ConnectionArgs::for_url(vhost.url()), Shutdown::new());
        let here = Connection::open(&args, "here", &shutdown).await?;
        let there = Connection::open(&args, "there", &shutdown).await?;
        let publisher = Publisher::new(&there, 1).with_topology(queue());
        publisher.publish(&message(b"first")).await;
        let all = here.session(async |session| {
            let mut consumer = consume(&session.channel, "q").await?;
            for number in 0..500 {
                let delivery = session.next(&mut consumer).await?.expect("nobody asked it to stop");
                assert_eq!(delivery.delivery_tag, number + 1);
                let outcome = publisher.publish(&message(b"next")).await;
                assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
            }
            Ok(())
        });
        all.await?;
        shutdown.close_connections().await;
        Ok(())
    })
}

#[test]
fn what_another_thread_gives_to_lapin_is_written_soon() -> Result<()> {
    let vhost = broker::node().vhost()?;
    run(async {
        let args = ConnectionArgs::for_url(vhost.url()).with_heartbeat(HEARTBEAT);
        let shutdown = Shutdown::new();
        let connection = Connection::open(&args, "from a thread", &shutdown).await?;
        let arrive = connection.session(async |session| {
            let channel = &session.channel;
            let declared =
                channel.queue_declare("q".into(), QueueDeclareOptions::durable(), FieldTable::default());
            declared.deadline("declare a queue").await?;
            let mut consumer = consume(channel, "q").await?;
            let publishing = thread::spawn({
                let channel = channel.clone();
                move || {
                    futures_lite::future::block_on(channel.basic_publish(
                        "".into(),
                        "q".into(),
                        BasicPublishOptions::default(),
                        b"from a thread",
                        BasicProperties::default(),
                    ))
                    .map(drop)
                }
            });
            let delivery = timeout(SOON, consumer.next()).await.expect("it is written soon");
            assert_eq!(
                delivery.expect("it is not cancelled").expect("it is not lost").data,
                b"from a thread"
            );
            publishing.join().expect("it does not panic").expect("it was written");
            Ok(())
        });
        within(arrive).await?;
        shutdown.close_connections().await;
        Ok(())
    })
}

#[test]
fn a_task_that_never_rests_keeps_no_message_back() -> Result<()> {
    run_connected("restless", async |connection| {
        let restless = tokio::spawn(never_resting());
        messages_pass_soon(connection).await?;
        restless.abort();
        Ok(())
    })
}

#[test]
fn acknowledgements_leave_while_the_next_handler_keeps_the_thread() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Arc::new(Relay::start(("127.0.0.1", broker::node().port()))?);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let notes = seen.clone();
    run(async {
        let shutdown = Shutdown::new();
        let connection = Connection::open(&args_through(&relay, &vhost), "at work", &shutdown).await?;
        let publisher = Publisher::new(&connection, 1).with_topology(queue());
        let bodies: Vec<_> = (0..4_u8).map(|number| [number]).collect();
        let messages: Vec<_> = bodies.iter().map(|body| message(body)).collect();
        for outcome in publisher.publish_batch(&messages).await {
            assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
        }
        let consumer = Consumer::new("at work", "q").with_topology(queue()).with_prefetch(10);
        let stop = shutdown.clone();
        let handler = move |_, delivery: lapin::message::Delivery| {
            let mut seen = notes.lock().expect("no handler panics");
            seen.push(delivery.data[0]);
            // Hard work, without an await.
            thread::sleep(Duration::from_millis(1500));
            match (delivery.data[0], times(&seen, 2)) {
                (2, 1) => relay.cut(),
                (3, 2) => stop.request(),
                _ => {}
            }
            async { Verdict::Ack }
        };
        consumer.run(&connection, handler).await?;
        shutdown.close_connections().await;
        Ok(())
    })?;
    // The first two were acknowledged long before the cut.
    let seen = seen.lock().expect("no handler panics");
    assert_eq!((times(&seen, 0), times(&seen, 1)), (1, 1), "{seen:?}");
    Ok(())
}

fn times(seen: &[u8], number: u8) -> usize {
    seen.iter().filter(|seen| **seen == number).count()
}
