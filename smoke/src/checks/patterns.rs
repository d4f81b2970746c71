//! The messaging patterns, each through the functions of its own crate.

use std::time::Duration;

use futures_lite::StreamExt;
use lapin::options::ExchangeDeclareOptions;
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, Consumer, ExchangeKind};
use rpc::{CallError, ReplyTo, RpcClient, Server};
use shared::{Connection, Deadline, Error, Publisher, QueueType, Result};
use work_queues::Acks;

use super::{BASE, of_patterns};
use crate::check::{Check, Finding, Group, fault, pass};
use crate::messages::{expect, expect_only, next, same};
use crate::trial::Trial;

pub(super) const CHECKS: &[Check] = &[
    of_patterns("hello", "one sender, one queue, one receiver", |trial| Box::pin(hello(trial))),
    of_patterns(
        "work-queue",
        "tasks shared by two workers; what a dead worker held is redelivered",
        |trial| Box::pin(work_queue(trial)),
    ),
    of_patterns("fanout", "a copy of every message for every receiver", |trial| Box::pin(fanout(trial))),
    of_patterns("direct", "receivers choose by an exact key", |trial| Box::pin(direct(trial))),
    of_patterns("topic", "receivers choose by patterns with * and #", |trial| Box::pin(topic(trial))),
    Check {
        name: "rpc",
        about: "requests and replies through a reply queue",
        group: Group::Patterns,
        needs: BASE,
        rests: Duration::ZERO,
        run: |trial| Box::pin(rpc_through(trial, ReplyTo::Queue)),
    },
    Check {
        name: "rpc-direct",
        about: "requests and replies through direct reply-to",
        group: Group::Patterns,
        needs: BASE,
        rests: Duration::ZERO,
        run: |trial| Box::pin(rpc_through(trial, ReplyTo::Direct)),
    },
];

async fn hello(trial: Trial) -> Result<Finding> {
    let queue = trial.queue(hello::QUEUE)?;
    let bodies = ["one", "two", "three"].map(|what| trial.payload(what));
    let said = trial.alone(async |session| {
        let channel = &session.channel;
        trial.step("declare a queue");
        hello::declare(channel, &queue, QueueType::Exclusive).await?;
        for (number, body) in bodies.iter().enumerate() {
            trial.step("get the broker's confirm for a message");
            hello::send(channel, &queue, body, &number.to_string()).await?;
        }
        trial.step("register a consumer");
        let mut consumer = hello::consume(channel, &queue).await?;
        expect_only(&trial, channel, &mut consumer, &bodies).await
    });
    said.await?;
    pass("3 messages in order")
}

/// Two workers on channels of their own, so that one of them can die.
async fn work_queue(trial: Trial) -> Result<Finding> {
    let queue = &trial.queue(work_queues::QUEUE)?;
    let tasks = ["one", "two", "three"].map(|what| trial.payload(what));
    let connection = trial.connect().await?;
    let worked = trial.on(&connection, async |session| {
        let survivor = &session.channel;
        trial.step("declare a queue");
        work_queues::declare(survivor, queue, QueueType::Exclusive).await?;
        let mut of_survivor = work_queues::consume(survivor, queue, 1, Acks::AfterWork).await?;
        let worked = trial.on(&connection, async |session| {
            let victim = &session.channel;
            trial.step("register a consumer");
            let mut of_victim = work_queues::consume(victim, queue, 1, Acks::AfterWork).await?;
            for (number, task) in tasks.iter().enumerate() {
                trial.step("get the broker's confirm for a task");
                work_queues::send(survivor, queue, task, &number.to_string()).await?;
            }
            // Prefetch 1: each has one, and the third waits for whoever is free.
            let first = next(&trial, &mut of_survivor).await?;
            let second = next(&trial, &mut of_victim).await?;
            let mut seen = [&first, &second].map(|task| String::from_utf8_lossy(&task.data).into_owned());
            seen.sort_by_key(|body| tasks.iter().position(|task| task == body));
            same(
                "each worker with one task: ",
                &&tasks[..2],
                &&seen[..],
                "the broker ignores the prefetch of 1",
            )?;
            // It dies with the second task in hand.
            Ok((first, String::from_utf8_lossy(&second.data).into_owned()))
        });
        let (first, second) = worked.await?;
        trial.step("acknowledge a task");
        work_queues::work(survivor, &first, Acks::AfterWork).await?;
        let mut rest = Vec::new();
        for _ in 0..2 {
            let task = next(&trial, &mut of_survivor).await?;
            work_queues::work(survivor, &task, Acks::AfterWork).await?;
            rest.push((String::from_utf8_lossy(&task.data).into_owned(), task.redelivered));
        }
        // Where a task that comes back stands in the queue, brokers may choose.
        rest.sort();
        let mut expected = vec![(second, true), (tasks[2].clone(), false)];
        expected.sort();
        same(
            "the dead worker's task, marked as redelivered, and the last one: ",
            &expected,
            &rest,
            "rabbitmqctl list_policies -p {vhost}",
        )?;
        // An acknowledged task that came back would come before it.
        let end = trial.payload("end mark");
        work_queues::send(survivor, queue, &end, "end").await?;
        expect(&trial, &mut of_survivor, &[end]).await.map(drop)
    });
    worked.await?;
    pass("3 tasks, 1 of them redelivered")
}

/// Declares an exchange that goes with the last queue that is bound to it, for a binding that follows at once.
///
/// Both go out together: an exchange that was never bound would stay if this process were killed in between.
/// So there is no answer to this; a refusal is the answer to the binding.
pub(super) async fn declare_exchange(
    trial: &Trial,
    channel: &Channel,
    what: &str,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> Result<String> {
    trial.step("declare an exchange and bind a queue to it");
    let exchange = trial.exchange(what)?;
    let options =
        ExchangeDeclareOptions { auto_delete: true, nowait: true, ..ExchangeDeclareOptions::default() };
    let declared = channel.exchange_declare(exchange.as_str().into(), kind, options, arguments);
    declared.deadline("declare an exchange").await?;
    Ok(exchange)
}

async fn fanout(trial: Trial) -> Result<Finding> {
    let bodies = ["one", "two"].map(|what| trial.payload(what));
    let copied = trial.alone(async |session| {
        let channel = &session.channel;
        trial.step("declare two queues");
        let queues =
            [pubsub_fanout::declare_queue(channel).await?, pubsub_fanout::declare_queue(channel).await?];
        let (name, arguments) = (pubsub_fanout::EXCHANGE, FieldTable::default());
        let exchange = &declare_exchange(&trial, channel, name, ExchangeKind::Fanout, arguments).await?;
        let mut receivers = Vec::new();
        for queue in &queues {
            pubsub_fanout::bind(channel, queue, exchange).await?;
            receivers.push(pubsub_fanout::consume(channel, queue).await?);
        }
        for (number, body) in bodies.iter().enumerate() {
            trial.step("get the broker's confirm for a message");
            pubsub_fanout::emit(channel, exchange, body, &number.to_string(), true).await?;
        }
        for receiver in &mut receivers {
            expect_only(&trial, channel, receiver, &bodies).await?;
        }
        Ok(())
    });
    copied.await?;
    pass("2 receivers, each with a copy of 2 messages")
}

async fn direct(trial: Trial) -> Result<Finding> {
    let routed = trial.alone(async |session| {
        let channel = &session.channel;
        trial.step("declare two queues");
        let queues =
            [routing_direct::declare_queue(channel).await?, routing_direct::declare_queue(channel).await?];
        let (name, arguments) = (routing_direct::EXCHANGE, FieldTable::default());
        let exchange = &declare_exchange(&trial, channel, name, ExchangeKind::Direct, arguments).await?;
        let mut receivers = Vec::new();
        for (queue, severities) in queues.iter().zip([&["error"][..], &["info", "error"]]) {
            for severity in severities {
                routing_direct::bind(channel, queue, exchange, &ShortString::from(*severity)).await?;
            }
            receivers.push((severities, routing_direct::consume(channel, queue).await?));
        }
        let keys = ["info", "error", "warn", "info"];
        let emit = async |key: &str, body: &str, id: &str| {
            routing_direct::emit(channel, exchange, &key.into(), body, id, true).await
        };
        let sent = send_by_key(&trial, &keys, &["warn"], emit).await?;
        for (severities, receiver) in &mut receivers {
            expect_by_key(&trial, channel, receiver, &sent, |key| severities.contains(&key)).await?;
        }
        Ok(())
    });
    routed.await?;
    pass("2 receivers, 3 keys, 1 of them unwanted and returned")
}

/// What topic exchanges are to tell apart: patterns, and the keys of [`TOPICS`] that match each.
const PATTERNS: [(&str, &[&str]); 4] = [
    ("kern.*", &["kern.critical", "kern.info"]),
    ("*.critical", &["kern.critical", "disk.critical"]),
    ("#", &["kern.critical", "kern.info", "disk.critical", "kern", "kern.a.b"]),
    ("kern.#", &["kern.critical", "kern.info", "kern", "kern.a.b"]),
];

const TOPICS: [&str; 5] = ["kern.critical", "kern.info", "disk.critical", "kern", "kern.a.b"];

async fn topic(trial: Trial) -> Result<Finding> {
    let routed = trial.alone(async |session| {
        let channel = &session.channel;
        let mut queues = Vec::new();
        for (pattern, keys) in PATTERNS {
            trial.step("declare a queue");
            queues.push((topics::declare_queue(channel).await?, pattern, keys));
        }
        let (name, arguments) = (topics::EXCHANGE, FieldTable::default());
        let exchange = &declare_exchange(&trial, channel, name, ExchangeKind::Topic, arguments).await?;
        let mut receivers = Vec::new();
        for (queue, pattern, keys) in queues {
            topics::bind(channel, &queue, exchange, &pattern.into()).await?;
            receivers.push((keys, topics::consume(channel, &queue).await?));
        }
        let emit = async |key: &str, body: &str, id: &str| {
            topics::emit(channel, exchange, &key.into(), body, id, true).await
        };
        let sent = send_by_key(&trial, &TOPICS, &[], emit).await?;
        for (keys, receiver) in &mut receivers {
            expect_by_key(&trial, channel, receiver, &sent, |key| keys.contains(&key)).await?;
        }
        Ok(())
    });
    routed.await?;
    pass(format!("{} patterns, {} keys", PATTERNS.len(), TOPICS.len()))
}

/// Sends a message under each key; those that nobody wants have to come back. What was sent, with its key.
async fn send_by_key<'k>(
    trial: &Trial,
    keys: &[&'k str],
    unwanted: &[&str],
    emit: impl AsyncFn(&str, &str, &str) -> Result<()>,
) -> Result<Vec<(&'k str, String)>> {
    let mut sent = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        trial.step("get the broker's confirm for a message");
        let body = trial.payload(key);
        match emit(key, &body, &number.to_string()).await {
            Ok(()) if unwanted.contains(key) => {
                let expected = format!(
                    "the mandatory message with the key {key} to be returned, as no binding wants it"
                );
                return Err(fault(
                    expected,
                    "a confirm without a return",
                    "rabbitmqctl list_bindings -p {vhost}",
                ));
            }
            Err(Error::Returned { code: 312, .. }) if unwanted.contains(key) => {}
            other => other?,
        }
        sent.push((*key, body));
    }
    Ok(sent)
}

async fn expect_by_key(
    trial: &Trial,
    channel: &Channel,
    receiver: &mut Consumer,
    sent: &[(&str, String)],
    wants: impl Fn(&str) -> bool,
) -> Result<()> {
    let wanted = sent.iter().filter(|(key, _)| wants(key));
    let bodies: Vec<_> = wanted.map(|(_, body)| body.clone()).collect();
    expect_only(trial, channel, receiver, &bodies).await.map(drop)
}

/// Requests whose answers differ, so that a reply to another request is found out.
const NUMBERS: [u64; 5] = [0, 1, 10, 30, 93];

async fn rpc_through(trial: Trial, reply_to: ReplyTo) -> Result<Finding> {
    let requests = trial.connect().await?;
    let replies = trial.connect().await?;
    let server = Server {
        queue: trial.queue(rpc::QUEUE)?,
        queue_type: QueueType::Exclusive,
        prefetch: u16::try_from(NUMBERS.len()).unwrap_or(1),
    };
    let served = trial.on(&requests, async |session| {
        trial.step("register a consumer");
        let consumer = rpc::consume(&session.channel, &server).await?;
        let client = RpcClient::new(&replies, &server.queue, reply_to);
        trial.step(format!("get {} replies", NUMBERS.len()));
        tokio::select! {
            failed = serve(&session.channel, consumer, &requests) => failed.map(|()| Vec::new()),
            answers = ask(&trial, &client) => answers,
        }
    });
    let mut answers = served.await?;
    answers.sort_unstable();
    let expected = NUMBERS.map(|n| rpc::fib(n).unwrap_or_default()).to_vec();
    same("the replies", &expected, &answers, "replies get lost or mixed up: rabbitmq-diagnostics log_tail")?;
    pass(format!("{} requests at once", NUMBERS.len()))
}

/// Answers requests until something goes wrong.
async fn serve(channel: &Channel, mut requests: Consumer, connection: &Connection) -> Result<()> {
    let publisher = Publisher::new(connection, 1);
    while let Some(request) = requests.next().await {
        let request = request.map_err(|cause| Error::Refused { step: "receive a request", cause })?;
        rpc::answer(request, channel, &publisher, drop).await?;
    }
    Err(Error::ConsumerCancelled { queue: requests.queue().to_string() })
}

/// The replies to all requests, which are under way at once.
async fn ask(trial: &Trial, client: &RpcClient) -> Result<Vec<u64>> {
    let [zero, one, ten, thirty, most] = NUMBERS.map(|n| client.call(n, trial.run().timeout));
    let (zero, one, ten, thirty, most) = tokio::join!(zero, one, ten, thirty, most);
    let answers = [zero, one, ten, thirty, most].into_iter().collect::<Result<_, _>>();
    answers.map_err(|error| match error {
        CallError::Connection(cause) => Error::Closed(cause),
        other => Error::own(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_matches_some_pattern_and_no_two_patterns_are_alike() {
        for (at, (_, keys)) in PATTERNS.iter().enumerate() {
            assert!(keys.iter().all(|key| TOPICS.contains(key)));
            assert!(PATTERNS.iter().skip(at + 1).all(|(_, others)| others != keys));
        }
    }
}
