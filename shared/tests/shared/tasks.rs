//! Tasks of a connection: on lapin's thread while there is one, and never lost with it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::Relay;
use shared::{Connection, ConnectionArgs, Consumer, Outcome, Publisher, Shutdown, State, Verdict};
use tokio::sync::{Notify, mpsc};
use tokio::task::consume_budget;
use tokio::time::sleep;

use crate::support::{args_through, on_both_runtimes, within};
use crate::waiting::{message, messages_pass_soon, never_resting, queue, run, run_connected};

const LAPINS: &str = "lapin-io-loop";

fn thread_name() -> String {
    thread::current().name().unwrap_or_default().to_owned()
}

/// The name of the thread, once there was a timer to wait for.
async fn thread_name_later() -> String {
    sleep(Duration::from_millis(1)).await;
    thread_name()
}

#[test]
fn a_task_outlives_its_connection_and_is_on_the_next_ones_thread() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    run(async {
        let shutdown = Shutdown::new();
        let connection = Connection::open(&args_through(&relay, &vhost), "outlives", &shutdown).await?;
        let (order, mut orders) = mpsc::channel(1);
        let (name, mut names) = mpsc::channel(1);
        let (outcome, mut outcomes) = mpsc::channel(1);
        let publisher = Publisher::new(&connection, 1).with_topology(queue()).with_resends(u32::MAX);
        let task = connection.spawn(async move {
            let mut orders_done = 0;
            while let Some(()) = orders.recv().await {
                name.send(thread_name_later().await).await.expect("somebody listens");
                outcome
                    .send(publisher.publish(&message(b"by a task")).await)
                    .await
                    .expect("somebody listens");
                orders_done += 1;
            }
            orders_done
        });
        let mut state = connection.state();
        for generation in 1..4 {
            within(
                state.wait_for(|state| matches!(state, State::Up { generation: now } if *now >= generation)),
            )
            .await?;
            order.send(()).await?;
            assert_eq!(within(names.recv()).await.expect("the task is not over"), LAPINS);
            let outcome = within(outcomes.recv()).await.expect("the task is not over");
            assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");

            relay.refuse(true);
            relay.cut();
            within(state.wait_for(|state| !matches!(state, State::Up { .. }))).await?;
            order.send(()).await?;
            // It goes on without one, wherever that is.
            within(names.recv()).await.expect("the task is not over");
            relay.refuse(false);
            let outcome = within(outcomes.recv()).await.expect("the task is not over");
            assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
        }
        drop(order);
        assert_eq!(within(task).await?, 6);
        shutdown.close_connections().await;
        Ok(())
    })
}

#[test]
fn a_task_starts_others_and_a_consumer() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let shutdown = Shutdown::new();
        let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "nested", &shutdown).await?;
        let (inner, stop) = (connection.clone(), shutdown.clone());
        let outer = connection.spawn(async move {
            let publisher = Publisher::new(&inner, 1).with_topology(queue());
            let publish = async move { publisher.publish(&message(b"inside")).await };
            let outcome = inner.spawn(publish).await?;
            // Nothing else happens beside it.
            let handler = move |_, _| {
                stop.request();
                async { Verdict::Ack }
            };
            let consumer = Consumer::new("inside", "q").with_topology(queue());
            consumer.run(&inner, handler).await?;
            anyhow::Ok((outcome, consumer.tally().acked))
        });
        let (outcome, acked) = within(outer).await??;
        assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
        assert_eq!(acked, 1);
        shutdown.close_connections().await;
        Ok(())
    })
}

#[test]
fn a_panic_is_the_tasks_own_and_the_connection_stays() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let shutdown = Shutdown::new();
        let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "panics", &shutdown).await?;
        let task = connection.spawn(async {
            thread_name_later().await;
            panic!("as the test wants it");
        });
        let error = within(task).await.expect_err("it panicked");
        assert!(error.is_panic(), "{error}");
        let publisher = Publisher::new(&connection, 1).with_topology(queue());
        let task = connection.spawn(async move { publisher.publish(&message(b"after it")).await });
        let outcome = within(task).await?;
        assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
        assert!(matches!(*connection.state().borrow(), State::Up { generation: 1 }));
        shutdown.close_connections().await;
        Ok(())
    })
}

/// Tells when it is dropped.
struct Dropped(Arc<Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

#[test]
fn an_aborted_task_is_dropped() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let shutdown = Shutdown::new();
        let connection =
            Connection::open(&ConnectionArgs::for_url(vhost.url()), "aborted", &shutdown).await?;
        let (started, dropped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let task = connection.spawn({
            let (started, dropped) = (started.clone(), Dropped(dropped.clone()));
            async move {
                thread_name_later().await;
                started.notify_one();
                std::future::pending::<()>().await;
                drop(dropped);
            }
        });
        within(started.notified()).await;
        task.abort();
        within(dropped.notified()).await;
        assert!(within(task).await.expect_err("it was aborted").is_cancelled());
        shutdown.close_connections().await;
        Ok(())
    })
}

#[test]
fn elsewhere_a_task_is_one_like_any_other() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let connection =
            Connection::open(&ConnectionArgs::for_url(vhost.url()), "elsewhere", &shutdown).await?;
        assert_eq!(within(connection.spawn(thread_name_later())).await?, thread_name());
        shutdown.close_connections().await;
        Ok(())
    })
}

/// A thread of lapin's that runs tasks wakes those of other connections.
#[test]
fn what_a_task_publishes_on_another_connection_leaves_at_once() -> Result<()> {
    const MESSAGES: usize = 100;
    let vhost = broker::node().vhost()?;
    run(async {
        let (args, shutdown) = (ConnectionArgs::for_url(vhost.url()), Shutdown::new());
        let here = Connection::open(&args, "here", &shutdown).await?;
        let there = Connection::open(&args, "there", &shutdown).await?;
        let publisher = Publisher::new(&there, 1).with_topology(queue());
        let task = here.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..MESSAGES {
                let start = Instant::now();
                let outcome = publisher.publish(&message(b"over there")).await;
                times.push(start.elapsed());
                assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
            }
            times.sort();
            (thread_name(), times[MESSAGES / 2])
        });
        let (name, median) = within(task).await?;
        assert_eq!(name, LAPINS);
        // One takes about a millisecond; where the other thread is not woken it was fifty.
        assert!(median < Duration::from_millis(25), "{median:?}");
        shutdown.close_connections().await;
        Ok(())
    })
}

#[test]
fn a_task_that_never_rests_keeps_neither_reads_nor_writes_back() -> Result<()> {
    run_connected("restless", async |connection| {
        let restless = connection.spawn(never_resting());
        messages_pass_soon(connection).await?;
        restless.abort();
        Ok(())
    })
}

/// tokio gives every task its share of what is there at once. Here many are polled as one.
#[test]
fn a_task_that_uses_up_its_share_leaves_the_others_theirs() -> Result<()> {
    run_connected("greedy", async |connection| {
        let greedy = connection.spawn(async {
            loop {
                consume_budget().await;
            }
        });
        let inner = connection.clone();
        let modest = connection.spawn(async move { messages_pass_soon(&inner).await });
        within(modest).await??;
        greedy.abort();
        Ok(())
    })
}
