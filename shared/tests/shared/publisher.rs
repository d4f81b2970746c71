//! The publisher's outcomes, each made to happen.

use anyhow::Result;
use harness::{Direction, Relay};
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use shared::{Connection, ConnectionArgs, Deadline, Error, Message, Outcome, Publisher, Shutdown, State};

use crate::support::{args_through, eventually, within};

fn to<'m>(exchange: &'m str, routing_key: &'m str) -> Message<'m> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    Message { exchange, routing_key, mandatory: true, properties, body: b"body" }
}

/// A durable queue `q`, with `x-` arguments.
async fn declare(connection: &Connection, arguments: &[(&str, AMQPValue)]) -> shared::Result<()> {
    let mut table = FieldTable::default();
    for (key, value) in arguments {
        table.insert((*key).into(), value.clone());
    }
    let declare = connection.session(async |session| {
        let queue = session.channel.queue_declare("q".into(), QueueDeclareOptions::durable(), table.clone());
        queue.deadline("declare a queue").await
    });
    declare.await.map(drop)
}

#[tokio::test]
async fn confirmed_returned_nacked_and_refused_are_told_apart() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "outcomes", &shutdown).await?;
    let overflow = AMQPValue::LongString("reject-publish".into());
    declare(&connection, &[("x-max-length", 1.into()), ("x-overflow", overflow)]).await?;
    let publisher = Publisher::new(&connection, 1);

    let outcome = publisher.publish(&to("", "q")).await;
    assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
    // Some messages go in beyond the limit before the queue says no.
    let mut nacked = false;
    for _ in 0..10 {
        nacked |= matches!(publisher.publish(&to("", "q")).await, Outcome::Nacked);
    }
    assert!(nacked, "a full queue never refused");
    let outcome = publisher.publish(&to("", "missing")).await;
    assert!(matches!(&outcome, Outcome::Returned { code: 312, text } if text == "NO_ROUTE"), "{outcome:?}");
    let outcome = publisher.publish(&Message { mandatory: false, ..to("", "missing") }).await;
    assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
    let outcome = publisher.publish(&to("no such exchange", "q")).await;
    assert!(matches!(&outcome, Outcome::NotSent(error) if error.code() == Some(404)), "{outcome:?}");
    // The refusal cost the channel, not the connection, and the next publish gets another channel.
    let outcome = publisher.publish(&to("amq.direct", "nowhere")).await;
    assert!(matches!(outcome, Outcome::Returned { .. }), "{outcome:?}");
    assert!(matches!(*connection.state().borrow(), State::Up { generation: 1 }));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_callers_on_eight_channels_each_get_their_own_outcome() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "callers", &shutdown).await?;
    declare(&connection, &[]).await?;
    let publisher = std::sync::Arc::new(Publisher::new(&connection, 8));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..50 {
        let publisher = publisher.clone();
        callers.spawn(async move {
            let mut wrong = 0;
            for turn in 0..20 {
                let routable = (caller + turn) % 2 == 0;
                let outcome = publisher.publish(&to("", if routable { "q" } else { "missing" })).await;
                wrong += usize::from(match outcome {
                    Outcome::Confirmed => !routable,
                    Outcome::Returned { .. } => routable,
                    _ => true,
                });
            }
            wrong
        });
    }
    let wrong: usize = within(callers.join_all()).await.into_iter().sum();
    assert_eq!(wrong, 0, "of 1000 outcomes");
    let channels = broker::node().get(&format!("/api/vhosts/{}/channels", vhost.name()))?;
    let channels = channels.as_array().map_or(0, Vec::len);
    assert!(channels <= 8, "{channels} channels for 8 places");
    eventually("500 messages in the queue", || {
        Ok(vhost.queue("q")?.is_some_and(|queue| queue["messages"] == 500))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_is_dropped_halfway_costs_no_more_than_its_channel() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "dropped", &shutdown).await?;
    declare(&connection, &[]).await?;
    let publisher = Publisher::new(&connection, 2);
    for round in 0..40_u64 {
        // Refused by the broker, at a moment when nobody waits for the answer any more.
        let message = to("no such exchange", "q");
        let given_up = std::time::Duration::from_micros(100 * round);
        let _ = tokio::time::timeout(given_up, publisher.publish(&message)).await;
        let outcome = publisher.publish(&to("", "q")).await;
        assert!(matches!(outcome, Outcome::Confirmed), "round {round}: {outcome:?}");
    }
    assert!(matches!(*connection.state().borrow(), State::Up { generation: 1 }));
    Ok(())
}

#[tokio::test]
async fn a_key_that_amqp_cannot_carry_is_not_sent() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), "long", &shutdown).await?;
    let publisher = Publisher::new(&connection, 1);
    let outcome = publisher.publish(&to("", &"x".repeat(256))).await;
    assert!(matches!(outcome, Outcome::NotSent(Error::Usage(_))), "{outcome:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_before_the_confirm_leaves_the_outcome_unknown() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&args_through(&relay, &vhost), "unknown", &shutdown).await?;
    declare(&connection, &[]).await?;
    let publisher = Publisher::new(&connection, 1);
    let outcome = publisher.publish(&to("", "q")).await;
    assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");

    // The message gets through, its confirm does not.
    relay.silence(Direction::ToClient, true);
    let message = to("", "q");
    let publish = publisher.publish(&message);
    let arrive_and_cut = async {
        eventually("the message in the queue", || {
            Ok(vhost.queue("q")?.is_some_and(|queue| queue["messages"] == 2))
        })
        .await?;
        relay.cut();
        relay.silence(Direction::ToClient, false);
        anyhow::Ok(())
    };
    let (outcome, cut) = tokio::join!(publish, arrive_and_cut);
    cut?;
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");

    let outcome = publisher.publish(&to("", "q")).await;
    assert!(matches!(outcome, Outcome::Confirmed), "in the next generation: {outcome:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_connection_a_message_is_not_sent_and_says_so() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let shutdown = Shutdown::new();
    let connection = Connection::open(&args_through(&relay, &vhost), "down", &shutdown).await?;
    let publisher = Publisher::new(&connection, 1);
    relay.refuse(true);
    relay.cut();
    within(connection.state().wait_for(|state| matches!(state, State::Reconnecting { .. }))).await?;
    let message = to("", "q");
    let publish = publisher.publish(&message);
    let stop = async { shutdown.request() };
    let (outcome, ()) = tokio::join!(publish, stop);
    assert!(matches!(outcome, Outcome::NotSent(Error::Stopped)), "{outcome:?}");
    Ok(())
}
