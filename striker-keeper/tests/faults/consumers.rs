//! Consumers whose queue goes, whose handlers fail or take too long, and which die at their work.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lapin::ExchangeKind;
use lapin::message::Delivery;
use serde_json::json;
use shared::{Binding, Consumer, Exchange, Outcome, Publisher, Queue, QueueType, Topology, Verdict};

use crate::support::{Client, LIMIT, OwnNode, Stage, Tally, after, eventually, row};

/// How often each body came.
#[derive(Clone, Default)]
struct Bodies(Arc<Mutex<BTreeMap<String, u32>>>);

impl Bodies {
    /// Notes one; how often it came until now.
    fn note(&self, delivery: &Delivery) -> (String, u32) {
        let body = String::from_utf8_lossy(&delivery.data).into_owned();
        let mut bodies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = bodies.entry(body.clone()).or_default();
        *times += 1;
        (body, *times)
    }

    fn all(&self) -> BTreeMap<String, u32> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Queue `q`, whose rejected messages go to queue `dead`.
fn with_dead_letters() -> Topology {
    Topology {
        exchanges: vec![Exchange::new("dlx", ExchangeKind::Fanout)],
        queues: vec![
            Queue { dead_letter_exchange: Some("dlx".to_owned()), ..Queue::new("q", QueueType::Classic) },
            Queue::new("dead", QueueType::Classic),
        ],
        bindings: vec![Binding::new("dlx", "dead", "")],
    }
}

#[test]
fn fault_19_queue_deleted() -> Result<()> {
    row(19, "the queue is deleted under its consumer", |row| {
        let stage = Stage::new()?;
        let url = stage.url();
        let mut keeper = stage.start_keeper(&url, &["--workers", "2"])?;
        let before = stage.run_striker(&url, &["--count", "50", "--rate", "0"])?.get("confirmed");
        // What is in a queue that is deleted goes with it: that is what deleting means.
        keeper.catch.wait_for(before, LIMIT)?;
        let starts = keeper.catch.starts();
        let since = Instant::now();
        stage.node.delete(&format!("/api/queues/{}/casillas", stage.vhost.name()))?;
        keeper.program.wait_for_error_line(|line| line.contains("the broker cancelled the consumer"));
        row.recoveries.push(after(since, keeper.catch.wait_for_start(starts + 1, LIMIT)?));
        stage.expect_keeper(2)?;
        let confirmed = stage.run_striker(&url, &["--count", "50", "--rate", "0"])?.get("confirmed");
        let catch = keeper.catch.clone();
        let keeper = stage.drain(row, before + confirmed, keeper)?;
        ensure!(keeper.get("reconnects") == 0, "{keeper:?} {:?}", catch.losses());
        row.seen =
            "the keeper says that its consumer was cancelled, declares the queue and its binding again, and \
            goes on, on the same connection"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_27_poison_message() -> Result<()> {
    row(27, "a message that no handler survives", |row| {
        let stage = Stage::new()?;
        let client = Client::open(&stage.url(), "poison")?;
        client.declare(&with_dead_letters())?;
        let publisher = Publisher::new(&client.connection, 1);
        for body in ["1", "poison", "2", "failure", "3"] {
            ensure!(matches!(client.publish(&publisher, "", "q", body)?, Outcome::Confirmed));
        }
        let bodies = Bodies::default();
        let consumer = Consumer::new("poisoned", "q").with_topology(with_dead_letters()).with_prefetch(5);
        let noted = bodies.clone();
        let running = client.consume(&consumer, move |_, delivery| {
            let (body, _) = noted.note(&delivery);
            async move {
                match &*body {
                    "poison" => panic!("as the row wants it"),
                    "failure" => Verdict::Retry,
                    _ => Verdict::Ack,
                }
            }
        });
        eventually("two dead letters and an empty queue", || {
            let count = |name| anyhow::Ok(stage.vhost.queue(name)?.map(|queue| queue["messages"].clone()));
            Ok(count("dead")? == Some(json!(2)) && count("q")? == Some(json!(0)))
        })?;
        client.shutdown.request();
        client.wait(running)???;
        let expected = [("1", 1), ("2", 1), ("3", 1), ("failure", 2), ("poison", 2)];
        let expected = expected.map(|(body, times)| (body.to_owned(), times));
        ensure!(bodies.all() == BTreeMap::from(expected), "{:?}", bodies.all());
        ensure!(consumer.tally().panicked == 2, "{:?}", consumer.tally());
        client.close()?;
        row.seen =
            "tried twice, then in the dead-letter queue; the worker lives on, the others are handled once"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_28_slow_handler() -> Result<()> {
    row(28, "a handler takes longer than the broker waits for an acknowledgement", |row| {
        let own = OwnNode::take()?;
        let stage = Stage::on(own.node())?;
        // Looked at by each channel this often; both count for channels that are opened from now on.
        let _tick = own.set("channel_tick_interval", 200)?;
        let _timeout = own.set("consumer_timeout", 600)?;
        // In RabbitMQ 4.3 the limit is for quorum queues only.
        let is_limited = !own.is_from(4, 3)?;
        let client = Client::open(&stage.url(), "slow")?;
        client.declare(&with_dead_letters())?;
        let publisher = Publisher::new(&client.connection, 1);
        for body in ["slow", "quick"] {
            ensure!(matches!(client.publish(&publisher, "", "q", body)?, Outcome::Confirmed));
        }
        let bodies = Bodies::default();
        let consumer = Consumer::new("slow", "q").with_topology(with_dead_letters());
        let noted = bodies.clone();
        let running = client.consume(&consumer, move |_, delivery| {
            let (body, times) = noted.note(&delivery);
            async move {
                if body == "slow" && times == 1 {
                    tokio::time::sleep(Duration::from_secs(2)).await;
                }
                Verdict::Ack
            }
        });
        eventually("both handled and acknowledged", || Ok(consumer.tally().acked == 2))?;
        eventually("one consumer and an empty queue", || {
            let q = stage.vhost.queue("q")?;
            Ok(q.is_some_and(|q| q["messages"] == 0 && q["consumers"] == 1))
        })?;
        ensure!(client.states().len() == 1, "the same connection: {:?}", client.states());
        client.shutdown.request();
        client.wait(running)???;
        let (tally, slow) = (consumer.tally(), bodies.all()["slow"]);
        ensure!((slow >= 2) == is_limited && tally.received == 1 + u64::from(slow), "{tally:?}");
        row.duplicated = u64::from(slow) - 1;
        client.close()?;
        row.seen =
            "the broker closes the channel (`406`, `delivery acknowledgement … timed out`); consumed again \
            on a new one, where the message comes again"
                .to_owned();
        Ok(())
    })
}

#[test]
fn fault_29_prefetch_after_a_loss() -> Result<()> {
    row(29, "a loss, and the prefetch after it", |row| {
        let stage = Stage::new()?;
        let url = stage.url();
        // Ten at once are more than both workers may hold, and in a second less than they can do.
        let keeper = stage.start_keeper(&url, &["--workers", "2", "--prefetch", "3", "--work", "100ms"])?;
        let striker = stage.striker(&url, &["--rate", "10", "--in-flight", "10"]).start();
        for _ in 0..3 {
            keeper.catch.wait_for_more(2, LIMIT)?;
            let starts = keeper.catch.starts();
            stage.vhost.close_connections()?;
            keeper.catch.wait_for_start(starts + 1, LIMIT)?;
            eventually("two consumers, with a prefetch of three", || {
                let consumers = stage.vhost.consumers()?;
                Ok(consumers.len() == 2 && consumers.iter().all(|one| one["prefetch_count"] == 3))
            })?;
            let queue = stage.vhost.queue("casillas")?.unwrap_or_default();
            ensure!(queue["messages_unacknowledged"].as_u64().is_some_and(|held| held <= 6), "{queue}");
        }
        stage.expect_keeper(2)?;
        striker.terminate();
        stage.finish(row, striker, keeper)?;
        row.seen = "the same limit for each worker in each generation, and no more messages held".to_owned();
        Ok(())
    })
}

#[test]
fn fault_30_killed_between_delivery_and_ack() -> Result<()> {
    row(30, "the keeper is killed (`kill -9`) between delivery and acknowledgement", |row| {
        let stage = Stage::new()?;
        let url = stage.url();
        let mut killed = stage.start_keeper(&url, &["--work", "1h", "--prefetch", "5"])?;
        let confirmed = stage.run_striker(&url, &["--count", "20", "--rate", "0"])?.get("confirmed");
        eventually("five messages in hand", || {
            let queue = stage.vhost.queue("casillas")?;
            Ok(queue.is_some_and(|queue| queue["messages_unacknowledged"] == 5))
        })?;
        killed.program.kill();
        stage.check_output(&killed.program.wait(LIMIT))?;
        let keeper = stage.start_keeper(&url, &[])?;
        keeper.catch.wait_for(confirmed, LIMIT)?;
        stage.expect_keeper(1)?;
        let keeper: Tally = stage.drain(row, confirmed, keeper)?;
        ensure!(keeper.get("redelivered") == 5 && keeper.get("received") == 20, "{keeper:?}");
        row.seen = "what was in hand comes again, marked as redelivered".to_owned();
        Ok(())
    })
}
