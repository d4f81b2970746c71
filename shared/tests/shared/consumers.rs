//! Consumers with workers: what they do with verdicts, panics, losses and shutdown.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use harness::Relay;
use lapin::ExchangeKind;
use serde_json::json;
use shared::{
    Binding, Connection, ConnectionArgs, Consumer, Error, Exchange, Queue, QueueType, Shutdown, State,
    Topology, Verdict,
};
use tokio::sync::Semaphore;

use crate::support::{args_through, eventually, in_the_end, on_both_runtimes, publish, within};

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

fn consumer() -> Consumer {
    Consumer::new("casillas", "q").with_topology(with_dead_letters())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_workers_or_no_prefetch_are_refused_before_the_broker_hears_of_it() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let args = ConnectionArgs::for_url(vhost.url());
    let connection = Connection::open(&args, "misconfigured", &Shutdown::new()).await?;
    for (consumer, words) in [
        (consumer().with_workers(0), "consumer 'casillas': the number of workers must be at least 1"),
        (consumer().with_prefetch(0), "consumer 'casillas': the prefetch must be at least 1"),
        (consumer().with_ack_every(0), "one acknowledgement must be about at least 1 message"),
        (consumer().with_workers(2).with_ack_every(2), "would be about the others' as well"),
        (Consumer::new("x".repeat(250), "q"), "too long for a consumer tag"),
        (Consumer::new("casillas", "x".repeat(256)), "the queue's name is over 255 bytes"),
    ] {
        let error = consumer.run(&connection, async |_, _| Verdict::Ack).await.expect_err(words);
        assert!(matches!(&error, Error::Usage(line) if line.contains(words)), "{error}");
    }
    assert!(vhost.queues()?.is_empty());
    Ok(())
}

#[test]
fn a_topology_for_which_the_broker_closes_the_connection_is_told_at_once() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let shutdown = Shutdown::new();
        let connection =
            Connection::open(&ConnectionArgs::for_url(vhost.url()), "unknown kind", &shutdown).await?;
        let kind = ExchangeKind::Custom("no such kind".into());
        let topology = Topology { exchanges: vec![Exchange::new("x", kind)], ..with_dead_letters() };
        let consumer = Consumer::new("casillas", "q").with_topology(topology);
        let error = within(consumer.run(&connection, async |_, _| Verdict::Ack)).await.expect_err("no kind");
        // From RabbitMQ 3.13 on it closes the channel only.
        let code = if broker::node().is_from(3, 13)? { 406 } else { 503 };
        assert_eq!(error.code(), Some(code), "{error}");
        shutdown.close_connections().await;
        Ok(())
    })
}

#[test]
fn workers_share_a_channel_and_each_has_its_own_tag_and_prefetch() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let args = ConnectionArgs::for_url(vhost.url());
        let shutdown = Shutdown::new();
        let connection = Connection::open(&args, "workers", &shutdown).await?;
        let consumer = consumer().with_workers(3).with_prefetch(2);
        // Nobody lets a handler go on before it is time.
        let (gate, seen) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(HashSet::new())));
        let (at_gate, notes) = (gate.clone(), seen.clone());
        let handler = move |worker, _| {
            let (gate, seen) = (at_gate.clone(), notes.clone());
            async move {
                seen.lock().expect("no handler panics").insert(worker);
                gate.acquire().await.expect("never closed").forget();
                Verdict::Ack
            }
        };
        let watch = async {
            eventually("three consumers", || Ok(vhost.consumers()?.len() == 3)).await?;
            let mut tags: Vec<_> =
                vhost.consumers()?.iter().map(|consumer| consumer["consumer_tag"].clone()).collect();
            tags.sort_by_key(ToString::to_string);
            assert_eq!(tags, ["casillas (1/3)", "casillas (2/3)", "casillas (3/3)"]);
            assert!(vhost.consumers()?.iter().all(|consumer| consumer["prefetch_count"] == 2));
            assert_eq!(vhost.connections()?[0]["channels"], 1);
            for _ in 0..10 {
                publish(&args, "", "q", "shot").await?;
            }
            eventually("3 × 2 messages with the workers", || {
                Ok(vhost.queue("q")?.is_some_and(|queue| {
                    queue["messages_unacknowledged"] == 6 && queue["messages_ready"] == 4
                }))
            })
            .await?;
            gate.add_permits(10);
            eventually("an empty queue", || {
                Ok(vhost.queue("q")?.is_some_and(|queue| queue["messages"] == 0))
            })
            .await?;
            shutdown.request();
            anyhow::Ok(())
        };
        let run = async { Ok(in_the_end(consumer.run(&connection, handler)).await?) };
        tokio::try_join!(run, watch)?;
        assert_eq!(*seen.lock().expect("no handler panics"), HashSet::from([1, 2, 3]));
        let tally = consumer.tally();
        assert_eq!((tally.received, tally.acked, tally.unsettled()), (10, 10, 0), "{tally:?}");
        Ok(())
    })
}

#[test]
fn a_failed_message_is_tried_once_more_and_a_panic_costs_an_attempt_only() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let args = ConnectionArgs::for_url(vhost.url());
        let shutdown = Shutdown::new();
        let connection = Connection::open(&args, "verdicts", &shutdown).await?;
        let consumer = consumer();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let notes = seen.clone();
        let handler = move |_, delivery: lapin::message::Delivery| {
            let body = String::from_utf8_lossy(&delivery.data).into_owned();
            notes.lock().expect("held for a moment").push((body.clone(), delivery.redelivered));
            assert_ne!(body, "early", "as the test wants it, before there is a future");
            async move {
                match &*body {
                    "panic" => panic!("as the test wants it"),
                    "retry" => Verdict::Retry,
                    "reject" => Verdict::Reject,
                    "once" if !delivery.redelivered => Verdict::Retry,
                    _ => Verdict::Ack,
                }
            }
        };
        let watch = async {
            with_dead_letters().declare(&connection).await?;
            for body in ["panic", "early", "retry", "reject", "once", "ok"] {
                publish(&args, "", "q", body).await?;
            }
            eventually("four dead letters and nothing else", || {
                let count = |name| anyhow::Ok(vhost.queue(name)?.map(|queue| queue["messages"].clone()));
                Ok(count("dead")? == Some(json!(4)) && count("q")? == Some(json!(0)))
            })
            .await?;
            shutdown.request();
            anyhow::Ok(())
        };
        let run = async { Ok(in_the_end(consumer.run(&connection, handler)).await?) };
        tokio::try_join!(run, watch)?;
        let tally = consumer.tally();
        assert_eq!((tally.received, tally.redelivered), (10, 4), "{tally:?}");
        assert_eq!((tally.acked, tally.requeued, tally.rejected, tally.panicked), (2, 4, 4, 4), "{tally:?}");
        let seen = seen.lock().expect("held for a moment");
        for (body, times) in [("panic", 2), ("early", 2), ("retry", 2), ("reject", 1), ("once", 2), ("ok", 1)]
        {
            assert_eq!(seen.iter().filter(|(seen, _)| seen == body).count(), times, "{body}: {seen:?}");
        }
        Ok(())
    })
}

#[test]
fn one_acknowledgement_for_many_messages_leaves_out_none_and_settles_no_failed_one() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let args = ConnectionArgs::for_url(vhost.url());
        let shutdown = Shutdown::new();
        let connection = Connection::open(&args, "cumulative", &shutdown).await?;
        with_dead_letters().declare(&connection).await?;
        for number in 0..10 {
            publish(&args, "", "q", &number.to_string()).await?;
        }
        let consumer = consumer().with_prefetch(8).with_ack_every(4);
        let handled = Arc::new(Mutex::new(0));
        let handler = move |_, delivery: lapin::message::Delivery| {
            let (handled, shutdown) = (handled.clone(), shutdown.clone());
            async move {
                assert!(delivery.data != b"5" || delivery.redelivered, "the first attempt fails");
                let mut handled = handled.lock().expect("it is not held where a handler panics");
                *handled += 1;
                // All ten, the rejected one twice.
                if *handled == 11 {
                    shutdown.request();
                }
                match &*delivery.data {
                    b"7" if delivery.redelivered => Verdict::Reject,
                    b"7" => Verdict::Retry,
                    _ => Verdict::Ack,
                }
            }
        };
        in_the_end(consumer.run(&connection, handler)).await?;
        let tally = consumer.tally();
        assert_eq!((tally.received, tally.acked, tally.requeued, tally.rejected), (12, 9, 2, 1), "{tally:?}");
        assert_eq!((tally.panicked, tally.unsettled()), (1, 0), "{tally:?}");
        eventually("nothing left but the rejected one", || {
            let messages = |queue: &str| {
                Ok::<_, anyhow::Error>(vhost.queue(queue)?.map(|queue| queue["messages"].clone()))
            };
            Ok(messages("q")? == Some(json!(0)) && messages("dead")? == Some(json!(1)))
        })
        .await
    })
}

#[test]
fn losses_and_a_deleted_queue_leave_exactly_the_configured_consumers() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
        let args = ConnectionArgs::for_url(vhost.url());
        let shutdown = Shutdown::new();
        let connection = Connection::open(&args_through(&relay, &vhost), "back", &shutdown).await?;
        let consumer = consumer().with_workers(2);
        let watch = async {
            let both = || Ok(vhost.consumers()?.len() == 2 && vhost.connections()?.len() == 1);
            eventually("both consumers", both).await?;
            // The later ones hit it while it starts again.
            for generation in 2..7 {
                relay.cut();
                let next = connection.state();
                within(
                    next.clone().wait_for(
                        |state| matches!(state, State::Up { generation: now } if *now >= generation),
                    ),
                )
                .await?;
            }
            eventually("both consumers, once", both).await?;
            let bindings = vhost.bindings()?.into_iter().filter(|binding| binding["source"] != "").count();
            assert_eq!(bindings, 1);
            broker::node().delete(&format!("/api/queues/{}/q", vhost.name()))?;
            eventually("the queue with both consumers again", both).await?;
            publish(&args, "", "q", "shot").await?;
            eventually("the message is handled", || Ok(consumer.tally().acked == 1)).await?;
            shutdown.request();
            anyhow::Ok(())
        };
        let run = async { Ok(in_the_end(consumer.run(&connection, async |_, _| Verdict::Ack)).await?) };
        tokio::try_join!(run, watch)?;
        Ok(())
    })
}

#[test]
fn a_handler_at_work_during_a_loss_ends_and_the_message_comes_again() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
        let args = ConnectionArgs::for_url(vhost.url());
        let shutdown = Shutdown::new();
        let connection = Connection::open(&args_through(&relay, &vhost), "outlived", &shutdown).await?;
        let consumer = consumer();
        let (gate, log) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let (at_gate, notes) = (gate.clone(), log.clone());
        let handler = move |_, delivery: lapin::message::Delivery| {
            let (gate, log) = (at_gate.clone(), notes.clone());
            async move {
                log.lock().expect("no handler panics").push(("start", delivery.redelivered));
                gate.acquire().await.expect("never closed").forget();
                log.lock().expect("no handler panics").push(("end", delivery.redelivered));
                Verdict::Ack
            }
        };
        let watch = async {
            with_dead_letters().declare(&connection).await?;
            publish(&args, "", "q", "shot").await?;
            eventually("the handler is at work", || Ok(consumer.tally().received == 1)).await?;
            relay.cut();
            eventually("the message is there again", || Ok(consumer.tally().received == 2)).await?;
            gate.add_permits(2);
            eventually("it is acknowledged", || Ok(consumer.tally().acked == 1)).await?;
            shutdown.request();
            anyhow::Ok(())
        };
        let run = async { Ok(in_the_end(consumer.run(&connection, handler)).await?) };
        tokio::try_join!(run, watch)?;
        // The worker never had two handlers at once.
        let log = log.lock().expect("no handler panics").clone();
        assert_eq!(log, [("start", false), ("end", false), ("start", true), ("end", true)]);
        assert_eq!(consumer.tally().unsettled(), 1);
        Ok(())
    })
}

#[test]
fn a_shutdown_lets_the_work_in_hand_finish_and_acknowledges_it() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let args = ConnectionArgs::for_url(vhost.url());
        let shutdown = Shutdown::new();
        let connection = Connection::open(&args, "drain", &shutdown).await?;
        let consumer = consumer().with_prefetch(3);
        let gate = Arc::new(Semaphore::new(0));
        let at_gate = gate.clone();
        let handler = move |_, _| {
            let gate = at_gate.clone();
            async move {
                gate.acquire().await.expect("never closed").forget();
                Verdict::Ack
            }
        };
        let watch = async {
            with_dead_letters().declare(&connection).await?;
            for _ in 0..5 {
                publish(&args, "", "q", "shot").await?;
            }
            eventually("three messages with the worker", || {
                Ok(vhost.queue("q")?.is_some_and(|queue| queue["messages_unacknowledged"] == 3))
            })
            .await?;
            shutdown.request();
            eventually("no consumer any more", || Ok(vhost.consumers()?.is_empty())).await?;
            gate.add_permits(5);
            anyhow::Ok(())
        };
        let run = async { Ok(in_the_end(consumer.run(&connection, handler)).await?) };
        tokio::try_join!(run, watch)?;
        assert_eq!(consumer.tally().acked, 3);
        shutdown.close_connections().await;
        eventually("the two others stay", || {
            Ok(vhost.queue("q")?.is_some_and(|queue| queue["messages_ready"] == 2))
        })
        .await?;
        tokio::time::timeout(Duration::from_secs(5), gate.acquire()).await??.forget();
        Ok(())
    })
}

#[test]
fn several_consumers_run_as_tasks_on_one_connection() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = broker::node().vhost()?;
        let args = ConnectionArgs::for_url(vhost.url());
        let shutdown = Shutdown::new();
        let connection = Connection::open(&args, "tasks", &shutdown).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for name in ["one", "two"] {
            let (consumer, connection) =
                (Consumer::new(name, "q").with_topology(with_dead_letters()), connection.clone());
            tasks.spawn(async move {
                with_dead_letters().declare(&connection).await?;
                consumer.run(&connection, |_, _| async { Verdict::Ack }).await
            });
        }
        eventually("two consumers on two channels", || {
            Ok(vhost.consumers()?.len() == 2 && vhost.connections()?[0]["channels"] == 2)
        })
        .await?;
        shutdown.request();
        for end in within(tasks.join_all()).await {
            end?;
        }
        Ok(())
    })
}
