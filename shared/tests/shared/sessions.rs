//! Sessions: what runs again after a loss, what ends them, and what they leave on the broker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::{LIMIT, args_through, consume, eventually, on_both_runtimes, publish, within};
use anyhow::Result;
use harness::{Direction, Relay};
use lapin::options::{BasicAckOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use shared::{Connection, ConnectionArgs, Deadline, Error, QueueType, RetryPolicy, Session, Shutdown, State};
use tokio::sync::mpsc;

/// Declares an exchange, a server-named queue and a binding; reports `ready`, then each message.
async fn subscribe(session: &Session, messages: &mpsc::UnboundedSender<String>) -> shared::Result<()> {
    let channel = &session.channel;
    let (options, table) = (ExchangeDeclareOptions::default(), FieldTable::default());
    let declared = channel.exchange_declare("logs".into(), lapin::ExchangeKind::Fanout, options, table);
    declared.deadline("declare an exchange").await?;
    let queue = channel.queue_declare("".into(), QueueDeclareOptions::exclusive(), FieldTable::default());
    let queue = queue.deadline("declare a queue").await?.name().clone();
    let (options, table) = (QueueBindOptions::default(), FieldTable::default());
    channel
        .queue_bind(queue.clone(), "logs".into(), "".into(), options, table)
        .deadline("bind a queue")
        .await?;
    report_messages(session, queue.as_str(), messages).await
}

async fn report_messages(
    session: &Session,
    queue: &str,
    messages: &mpsc::UnboundedSender<String>,
) -> shared::Result<()> {
    let mut consumer = consume(&session.channel, queue).await?;
    let _ = messages.send("ready".to_owned());
    while let Some(delivery) = session.next(&mut consumer).await? {
        let _ = messages.send(String::from_utf8_lossy(&delivery.data).into_owned());
    }
    Ok(())
}

async fn declare(channel: &lapin::Channel, queue: &str, queue_type: QueueType) -> shared::Result<()> {
    let declared = channel.queue_declare(queue.into(), queue_type.options(), queue_type.arguments());
    declared.deadline("declare a queue").await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_cuts_in_a_row_leave_one_consumer_one_binding_and_no_growth() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&args_through(&relay, &vhost), "cut", &shutdown).await?;
    let (messages, mut received) = mpsc::unbounded_channel();
    let session = connection.session(async |session| subscribe(&session, &messages).await);
    let steps = async {
        assert_eq!(within(received.recv()).await.as_deref(), Some("ready"));
        for _ in 0..20 {
            relay.cut();
            assert_eq!(within(received.recv()).await.as_deref(), Some("ready"));
        }
        let state = connection.state().borrow().clone();
        assert!(matches!(state, State::Up { generation: 21 }), "{state:?}");

        publish(&ConnectionArgs::for_url(vhost.url()), "logs", "", "after the cuts").await?;
        assert_eq!(within(received.recv()).await.as_deref(), Some("after the cuts"));
        eventually("one consumer, queue, binding, connection and channel", || {
            let bindings = vhost.bindings()?;
            let bindings = bindings.iter().filter(|binding| binding["source"] == "logs").count();
            let channels = broker::node().rabbitmqctl(&["-q", "list_channels", "vhost"])?;
            let channels = channels.lines().filter(|line| *line == vhost.name()).count();
            let counts = [vhost.consumers()?.len(), vhost.queues()?.len(), vhost.connections()?.len()];
            Ok(bindings == 1 && channels == 1 && counts == [1; 3])
        })
        .await?;
        shutdown.request();
        anyhow::Ok(())
    };
    let (ended, steps) = tokio::join!(session, steps);
    steps?;
    ended?;
    shutdown.close_connections().await;
    relay.wait_for_connections(0, LIMIT);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_queue_is_declared_again_and_consumed_on() -> Result<()> {
    let vhost = broker::node().vhost()?;
    // A session that has lasted is no failed attempt, so one attempt is enough.
    let retry = RetryPolicy { attempts: 1, ..RetryPolicy::default() };
    let args = ConnectionArgs::for_url(vhost.url()).with_retry(retry);
    let shutdown = Shutdown::new();
    let connection = Connection::open(&args, "cancelled", &shutdown).await?;
    let (messages, mut received) = mpsc::unbounded_channel();
    let session = connection.session(async |session| {
        declare(&session.channel, "q", QueueType::Classic).await?;
        report_messages(&session, "q", &messages).await
    });
    let steps = async {
        assert_eq!(within(received.recv()).await.as_deref(), Some("ready"));
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        broker::node().delete(&format!("/api/queues/{}/q", vhost.name()))?;
        assert_eq!(within(received.recv()).await.as_deref(), Some("ready"));
        publish(&args, "", "q", "to the new queue").await?;
        assert_eq!(within(received.recv()).await.as_deref(), Some("to the new queue"));
        assert!(matches!(*connection.state().borrow(), State::Up { generation: 1 }));
        shutdown.request();
        anyhow::Ok(())
    };
    let (ended, steps) = tokio::join!(session, steps);
    steps?;
    ended?;
    Ok(())
}

#[tokio::test]
async fn an_error_of_the_sessions_own_ends_it() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "own", &shutdown).await?;
    let runs = AtomicUsize::new(0);
    let ended: Result<(), Error> = connection
        .session(async |_session| {
            runs.fetch_add(1, Ordering::Relaxed);
            Err(Error::own("the disk is full"))
        })
        .await;
    assert_eq!(ended.unwrap_err().to_string(), "the disk is full");
    assert_eq!(runs.into_inner(), 1);
    Ok(())
}

/// A queue with other arguments, a missing queue, somebody else's exclusive queue.
#[tokio::test]
async fn a_refusal_at_the_first_run_ends_the_session_and_leaves_the_connection() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let shutdown = Shutdown::new();
    let args = ConnectionArgs::for_url(vhost.url());
    let connection = Connection::open(&args, "refused", &shutdown).await?;
    let owner = Connection::open(&args, "owner", &shutdown).await?;
    let exclusive = owner.session(async |session| {
        let queue = session.channel.queue_declare(
            "mine".into(),
            QueueDeclareOptions::exclusive(),
            FieldTable::default(),
        );
        queue.deadline("declare a queue").await
    });
    exclusive.await?;
    connection.session(async |session| declare(&session.channel, "q", QueueType::Quorum).await).await?;

    let (mut codes, mut hints) = (Vec::new(), String::new());
    for (queue, steps) in [("q", "declare"), ("missing", "consume"), ("mine", "consume")] {
        let error = connection
            .session(async |session| match steps {
                "declare" => declare(&session.channel, queue, QueueType::Classic).await,
                _ => consume(&session.channel, queue).await.map(drop),
            })
            .await
            .unwrap_err();
        codes.extend(error.code());
        hints.push_str(&error.explain());
    }
    assert_eq!(codes, [406, 404, 405]);
    for words in [
        "exists with another x-queue-type",
        "declare the queue 'missing' first",
        "belongs to another connection",
    ] {
        assert!(hints.contains(words), "{words}: {hints}");
    }
    // The connection is as good as new.
    connection.session(async |session| declare(&session.channel, "q", QueueType::Quorum).await).await?;
    assert!(matches!(*connection.state().borrow(), State::Up { generation: 1 }));
    Ok(())
}

/// lapin tells the reason only to a call that waits when it comes, and here none does.
#[tokio::test]
async fn a_channel_found_closed_is_explained_by_the_brokers_refusal() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "closed", &shutdown).await?;
    let ended = connection.session(async |session| {
        // An acknowledgement of nothing has no answer of its own.
        let channel = &session.channel;
        channel.basic_ack(99, BasicAckOptions::default()).deadline("acknowledge a message").await?;
        while channel.status().connected() {
            tokio::task::yield_now().await;
        }
        declare(channel, "q", QueueType::Classic).await
    });
    let line = within(ended).await.unwrap_err().to_string();
    assert!(line.contains("406 PRECONDITION_FAILED - unknown delivery tag 99"), "{line}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn used_up_attempts_are_an_error_with_address_count_and_cause() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let retry = RetryPolicy { attempts: 4, interval: Duration::from_millis(50) };
    let args = args_through(&relay, &vhost).with_retry(retry);
    let shutdown = Shutdown::new();
    let connection = Connection::open(&args, "exhausted", &shutdown).await?;
    let (messages, mut received) = mpsc::unbounded_channel();
    let session = connection.session(async |session| subscribe(&session, &messages).await);
    let steps = async {
        assert_eq!(within(received.recv()).await.as_deref(), Some("ready"));
        relay.refuse(true);
        relay.cut();
    };
    let (ended, ()) = tokio::join!(session, steps);
    let error = ended.unwrap_err();
    let Error::Closed(cause) = &error else { panic!("{error:?}") };
    assert!(matches!(&**cause, Error::Exhausted { attempts: 4, .. }), "{cause:?}");
    let line = error.to_string();
    assert!(line.contains(&format!("127.0.0.1:{}", relay.port())), "{line}");
    assert!(line.contains("after 4 failed attempts") && line.contains("connection refused"), "{line}");
    assert!(matches!(&*connection.state().borrow(), State::Closed { cause: Some(_) }));
    Ok(())
}

/// Such a connection can be had again and again, but no work gets done on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_on_which_nothing_is_answered_counts_as_a_failed_attempt() -> Result<()> {
    // Longer than a connection has to last to count as one that worked.
    const WAIT: Duration = Duration::from_millis(1200);
    let vhost = broker::node().vhost()?;
    let retry = RetryPolicy { attempts: 2, interval: Duration::from_millis(50) };
    let args = ConnectionArgs::for_url(vhost.url()).with_retry(retry);
    let shutdown = Shutdown::new();
    let connection = Connection::open(&args, "unanswered", &shutdown).await?;
    let mut runs = 0;
    let session = connection.session(async |_| {
        runs += 1;
        std::future::pending::<lapin::Result<()>>().deadline_in(WAIT, "be answered").await
    });
    let error = within(session).await.unwrap_err();
    let Error::Closed(cause) = &error else { panic!("{error:?}") };
    assert!(matches!(&**cause, Error::Exhausted { attempts: 2, .. }), "{cause:?}");
    assert_eq!(runs, 3, "the first connection, and two attempts to have another");
    Ok(())
}

/// The states a watcher sees over a loss, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_states_tell_the_story_in_order() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&args_through(&relay, &vhost), "states", &shutdown).await?;
    let mut states = connection.state();
    assert!(matches!(*states.borrow_and_update(), State::Up { generation: 1 }));
    // The next attempt gets no answer until it is refused.
    relay.silence(Direction::ToClient, true);
    relay.cut();
    let lost = within(states.wait_for(|state| matches!(state, State::Reconnecting { .. }))).await?.clone();
    assert!(lost.to_string().contains("; attempt 1/1200 in "), "{lost}");
    relay.wait_for_accepted(2, LIMIT);
    relay.refuse(true);
    relay.cut();
    let lost = within(states.wait_for(|state| matches!(state, State::Reconnecting { attempt: 3.., .. })))
        .await?
        .clone();
    let State::Reconnecting { cause, .. } = lost else { unreachable!("waited for it") };
    assert!(cause.to_string().contains("connection refused"), "{cause}");
    relay.silence(Direction::ToClient, false);
    relay.refuse(false);
    within(states.wait_for(|state| matches!(state, State::Up { generation: 2 }))).await?;
    shutdown.close_connections().await;
    assert!(matches!(*states.borrow(), State::Closed { cause: None }));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_says_goodbye_to_the_broker() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&args_through(&relay, &vhost), "goodbye", &shutdown).await?;
    connection.session(async |session| declare(&session.channel, "q", QueueType::Classic).await).await?;
    drop(connection);
    relay.wait_for_connections(0, LIMIT);
    Ok(())
}

/// Whoever waits for an answer then knows of the loss before the connection does, whose cause it is to be.
#[test]
fn the_brokers_words_are_the_cause_of_a_loss_that_a_call_sees_first() -> Result<()> {
    on_both_runtimes(async || {
        let vhost = Arc::new(broker::node().vhost()?);
        let shutdown = Shutdown::new();
        // A delay, so that the next connection is not there before anybody has looked at the state.
        let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
        relay.delay(Duration::from_millis(30));
        let connection = Connection::open(&args_through(&relay, &vhost), "calling", &shutdown).await?;
        let calls = connection.session::<()>(async |session| {
            loop {
                declare(&session.channel, "q", QueueType::Classic).await?;
            }
        });
        let mut state = connection.state();
        let steps = async {
            for generation in 1..=5 {
                let is_next =
                    |state: &State| matches!(state, State::Up { generation: now } if *now >= generation);
                within(state.wait_for(is_next)).await?;
                eventually("the calls", || Ok(vhost.queue("q")?.is_some())).await?;
                let of = vhost.clone();
                let close = tokio::task::spawn_blocking(move || of.close_connections());
                let lost = state.wait_for(|state| matches!(state, State::Reconnecting { .. }));
                let cause = within(lost).await?.to_string();
                assert_eq!(close.await??, 1);
                assert!(cause.contains("closed by a test"), "{cause}");
            }
            anyhow::Ok(())
        };
        tokio::select! {
            ended = calls => panic!("{ended:?}"),
            steps = steps => steps?,
        }
        shutdown.close_connections().await;
        Ok(())
    })
}
