//! The publisher's other ways: batches, a channel per message, no confirms, and sending again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use broker::Vhost;
use harness::{Direction, Relay};
use lapin::message::Delivery;
use lapin::options::BasicGetOptions;
use lapin::{BasicProperties, ExchangeKind};
use shared::{
    Binding, Connection, ConnectionArgs, Deadline, Error, Exchange, Message, Outcome, Publisher, Queue,
    QueueType, Shutdown, State, Topology, message_id,
};
use tokio::task::JoinSet;

use crate::support::{args_through, eventually, within};

fn queue_q() -> Topology {
    Topology {
        exchanges: vec![Exchange::new("x", ExchangeKind::Direct)],
        queues: vec![Queue::new("q", QueueType::Classic)],
        bindings: vec![Binding::new("x", "q", "k")],
    }
}

fn to<'m>(routing_key: &'m str, mandatory: bool, body: &'m [u8]) -> Message<'m> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    Message { exchange: "x", routing_key, mandatory, properties, body }
}

async fn connect(vhost: &Vhost<'_>, name: &str) -> shared::Result<Connection> {
    let connection = Connection::open(&ConnectionArgs::for_url(vhost.url()), name, &Shutdown::new()).await?;
    queue_q().declare(&connection).await?;
    Ok(connection)
}

/// Takes all messages out of `q`.
async fn drain(connection: &Connection) -> shared::Result<Vec<Delivery>> {
    let drain = connection.session(async |session| {
        let mut deliveries = Vec::new();
        let get = || session.channel.basic_get("q".into(), BasicGetOptions { no_ack: true });
        while let Some(message) = get().deadline("get a message").await? {
            deliveries.push(message.delivery);
        }
        Ok(deliveries)
    });
    drain.await
}

async fn messages_in_q(vhost: &Vhost<'_>, expected: u64) -> Result<()> {
    let what = format!("{expected} messages in the queue");
    eventually(&what, || Ok(vhost.queue("q")?.is_some_and(|queue| queue["messages"] == expected))).await
}

fn channels(vhost: &Vhost<'_>) -> Result<u64> {
    let connections = vhost.connections()?;
    Ok(connections.iter().filter_map(|connection| connection["channels"].as_u64()).sum())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_tells_each_return_from_each_confirm_and_keeps_the_order() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let connection = connect(&vhost, "batch").await?;
    let publisher = Publisher::new(&connection, 1).with_window(700);
    let bodies: Vec<_> = (0..2000_u32).map(|number| number.to_string()).collect();
    let routable = |place: usize| place.is_multiple_of(2) || place.is_multiple_of(7);
    let messages: Vec<_> = bodies
        .iter()
        .enumerate()
        .map(|(place, body)| to(if routable(place) { "k" } else { "nowhere" }, true, body.as_bytes()))
        .collect();
    let outcomes = within(publisher.publish_batch(&messages)).await;
    assert_eq!(outcomes.len(), messages.len());
    for (place, outcome) in outcomes.iter().enumerate() {
        let right = match outcome {
            Outcome::Confirmed => routable(place),
            Outcome::Returned { code: 312, .. } => !routable(place),
            _ => false,
        };
        assert!(right, "message {place}: {outcome:?}");
    }
    let arrived: Vec<_> = drain(&connection).await?.into_iter().map(|message| message.data).collect();
    let expected: Vec<_> =
        bodies.iter().enumerate().filter(|(place, _)| routable(*place)).map(|(_, body)| body).collect();
    assert!(arrived.iter().map(Vec::as_slice).eq(expected.iter().map(|body| body.as_bytes())));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_one_message_of_a_batch_leaves_the_others_exact() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let connection = connect(&vhost, "mixed batch").await?;
    let publisher = Publisher::new(&connection, 1);
    let long = "x".repeat(256);
    let twin = BasicProperties::default().with_message_id("twin".into());
    let messages = [
        to("k", true, b"1"),
        to(&long, true, b"2"),
        Message { properties: twin.clone(), ..to("nowhere", true, b"3") },
        Message { properties: twin.clone(), ..to("k", true, b"4") },
        Message { properties: twin, ..to("nowhere", false, b"5") },
    ];
    let outcomes = within(publisher.publish_batch(&messages)).await;
    let [first, long, twin, other_twin, unrouted] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert!(matches!(first, Outcome::Confirmed), "{first:?}");
    assert!(matches!(long, Outcome::NotSent(Error::Usage(_))), "{long:?}");
    assert!(matches!(twin, Outcome::Returned { .. }), "{twin:?}");
    assert!(matches!(other_twin, Outcome::NotSent(Error::Usage(_))), "{other_twin:?}");
    assert!(matches!(unrouted, Outcome::Confirmed), "{unrouted:?}");

    // One of them closes the channel: which one, only the broker knows.
    let messages =
        [to("k", false, b"6"), Message { exchange: "missing", ..to("k", false, b"7") }, to("k", false, b"8")];
    let outcomes = within(publisher.publish_batch(&messages)).await;
    for outcome in &outcomes[1..] {
        assert!(matches!(outcome, Outcome::Unknown(error) if error.code() == Some(404)), "{outcomes:?}");
    }
    // Sent again one by one, each has its own answer.
    let again = Publisher::new(&connection, 1).with_resends(2);
    let outcomes = within(again.publish_batch(&messages)).await;
    let [before, missing, behind] = &outcomes[..] else { panic!("{outcomes:?}") };
    assert!(matches!((before, behind), (Outcome::Confirmed, Outcome::Confirmed)), "{outcomes:?}");
    assert!(matches!(missing, Outcome::Unknown(error) if error.code() == Some(404)), "{outcomes:?}");
    assert!(matches!(*connection.state().borrow(), State::Up { generation: 1 }));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_channel_for_each_message_leaves_no_channel_behind() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let connection = connect(&vhost, "new channels").await?;
    let publisher = Publisher::new(&connection, 1);
    let before = channels(&vhost)?;
    for _ in 0..100 {
        let outcome = publisher.publish_on_new_channel(&to("k", true, b"goal")).await;
        assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
    }
    let outcome = publisher.publish_on_new_channel(&to("nowhere", true, b"goal")).await;
    assert!(matches!(outcome, Outcome::Returned { code: 312, .. }), "{outcome:?}");
    let missing = Message { exchange: "missing", ..to("k", true, b"goal") };
    let outcome = publisher.publish_on_new_channel(&missing).await;
    assert!(matches!(&outcome, Outcome::NotSent(error) if error.code() == Some(404)), "{outcome:?}");
    eventually("no channel more than before", || Ok(channels(&vhost)? == before)).await?;
    messages_in_q(&vhost, 100).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_confirms_one_channel_serves_all_and_is_replaced_when_the_broker_closes_it() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let connection = connect(&vhost, "unconfirmed").await?;
    let publisher = Publisher::new(&connection, 1);
    let before = channels(&vhost)?;
    for _ in 0..100 {
        publisher.publish_unconfirmed(&[to("k", true, b"goal")]).await?;
    }
    let batch: Vec<_> = (0..3000).map(|_| to("k", false, b"goal")).collect();
    publisher.publish_unconfirmed(&batch).await?;
    messages_in_q(&vhost, 3100).await?;
    assert_eq!(channels(&vhost)?, before + 1);
    publisher.flush().await?;
    eventually("the channel is closed", || Ok(channels(&vhost)? == before)).await?;
    publisher.flush().await?;

    // The refusal comes when nobody waits for it.
    publisher.publish_unconfirmed(&[Message { exchange: "missing", ..to("k", false, b"lost") }]).await?;
    eventually("the broker closes the channel", || Ok(channels(&vhost)? == before)).await?;
    publisher.publish_unconfirmed(&[to("k", false, b"goal")]).await?;
    messages_in_q(&vhost, 3101).await?;
    assert!(matches!(*connection.state().borrow(), State::Up { generation: 1 }));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_confirms_a_loss_is_told_by_the_next_flush_and_by_no_other() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let connection = Connection::open(&args_through(&relay, &vhost), "flush", &Shutdown::new()).await?;
    queue_q().declare(&connection).await?;
    let publisher = Publisher::new(&connection, 1);
    publisher.publish_unconfirmed(&[to("k", false, b"goal")]).await?;
    relay.cut();
    within(connection.state().wait_for(|state| matches!(state, State::Up { generation: 2 }))).await?;
    let flushed = publisher.flush().await;
    assert!(matches!(flushed, Err(Error::Lost(_))), "{flushed:?}");
    publisher.publish_unconfirmed(&[to("k", false, b"goal")]).await?;
    publisher.flush().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_that_was_deleted_is_declared_again() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let connection = connect(&vhost, "deleted exchange").await?;
    let publisher = Publisher::new(&connection, 1).with_topology(queue_q()).with_resends(3);
    let outcome = publisher.publish(&to("k", true, b"before")).await;
    assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
    broker::node().delete(&format!("/api/exchanges/{}/x", vhost.name()))?;
    let outcome = publisher.publish(&to("k", true, b"after")).await;
    assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
    assert_eq!(publisher.resent(), 1);
    messages_in_q(&vhost, 2).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_again_keeps_its_id_and_none_is_lost() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let connection = Connection::open(&args_through(&relay, &vhost), "again", &Shutdown::new()).await?;
    queue_q().declare(&connection).await?;
    let publisher = Publisher::new(&connection, 1).with_resends(100);
    // Reserves the channel.
    let outcome = publisher.publish(&to("k", true, b"first")).await;
    assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");

    // All arrive, no confirm comes back, and the connection is lost.
    relay.silence(Direction::ToClient, true);
    let ids: Vec<_> = (0..50).map(|_| message_id()).collect();
    let batch: Vec<_> = ids
        .iter()
        .map(|id| Message {
            properties: BasicProperties::default().with_message_id(id.as_str().into()),
            ..to("k", true, b"again")
        })
        .collect();
    let publish = publisher.publish_batch(&batch);
    let cut = async {
        messages_in_q(&vhost, 51).await?;
        relay.cut();
        relay.silence(Direction::ToClient, false);
        anyhow::Ok(())
    };
    let (outcomes, cut) = tokio::join!(within(publish), cut);
    cut?;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Confirmed)), "{outcomes:?}");
    assert_eq!(publisher.resent(), 50);

    let mut copies = HashMap::<String, u32>::new();
    for message in &drain(&connection).await?[1..] {
        let id = message.properties.message_id().clone().expect("each has an id");
        *copies.entry(id.to_string()).or_default() += 1;
    }
    assert_eq!(copies.len(), 50);
    assert!(ids.iter().all(|id| copies.get(id) == Some(&2)), "{copies:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_holds_however_often_a_message_may_be_sent_again() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let connection = Connection::open(&args_through(&relay, &vhost), "late", &Shutdown::new()).await?;
    queue_q().declare(&connection).await?;
    let publisher = Publisher::new(&connection, 1).with_deadline(Duration::from_secs(2)).with_resends(2);
    // Reserves the channel.
    let outcome = publisher.publish(&to("k", true, b"first")).await;
    assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
    relay.silence(Direction::ToClient, true);
    let outcome = within(publisher.publish(&to("k", true, b"late"))).await;
    // The first try may have arrived, whatever became of the others.
    assert!(matches!(outcome, Outcome::Unknown(_)), "{outcome:?}");
    assert_eq!(publisher.resent(), 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_whose_messages_need_not_come_back_share_a_channel() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let connection = connect(&vhost, "together").await?;
    let publisher = Arc::new(Publisher::new(&connection, 4).with_resends(2));
    let before = channels(&vhost)?;
    let all_publish = |exchange: &'static str| {
        let mut callers = JoinSet::new();
        for caller in 0..50 {
            let publisher = publisher.clone();
            callers.spawn(async move {
                let exchange = if caller == 25 { exchange } else { "x" };
                publisher.publish(&Message { exchange, ..to("k", false, b"together") }).await
            });
        }
        within(callers.join_all())
    };
    let outcomes = all_publish("x").await;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Confirmed)), "{outcomes:?}");
    assert_eq!(channels(&vhost)?, before + 1);
    messages_in_q(&vhost, 50).await?;

    // One of them is refused, which costs the channel; each of the others has its own outcome all the same.
    let outcomes = all_publish("missing").await;
    let refused = |outcome: &&Outcome| matches!(outcome, Outcome::Unknown(error) | Outcome::NotSent(error) if error.code() == Some(404));
    assert_eq!(outcomes.iter().filter(refused).count(), 1, "{outcomes:?}");
    let confirmed = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Confirmed)).count();
    assert_eq!(confirmed, 49, "{outcomes:?}");
    assert!(matches!(*connection.state().borrow(), State::Up { generation: 1 }));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_room_for_another_channel_is_said_in_those_words() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let args = ConnectionArgs::for_url(format!("{}?channel_max=1", vhost.url()));
    let connection = Connection::open(&args, "one channel", &Shutdown::new()).await?;
    queue_q().declare(&connection).await?;
    let publisher = Publisher::new(&connection, 2).with_deadline(Duration::from_secs(2));
    let outcome = publisher.publish(&to("k", true, b"first")).await;
    assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
    let outcome = publisher.publish(&to("k", false, b"second")).await;
    let Outcome::NotSent(error) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("the maximum number of channels"), "{error}");
    // What has its channel goes on.
    let outcome = publisher.publish(&to("k", true, b"third")).await;
    assert!(matches!(outcome, Outcome::Confirmed), "{outcome:?}");
    Ok(())
}
