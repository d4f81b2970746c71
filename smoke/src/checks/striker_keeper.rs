//! The resilient pair: a batch whose every message has its outcome, and a consumer with workers.

use lapin::message::Delivery;
use shared::{Consumer, Outcome, Publisher, Queue, QueueType, Result, Topology, Verdict};
use std::sync::{Arc, Mutex, PoisonError};
use striker_keeper::shots::shot;
use tokio::sync::Notify;

use super::of_patterns;
use crate::check::{Check, Finding, pass};
use crate::messages::same;
use crate::trial::Trial;

pub(super) const CHECKS: &[Check] = &[of_patterns(
    "striker-keeper",
    "a batch with an outcome for each message, a consumer with workers",
    |trial| Box::pin(striker_keeper(trial)),
)];

/// Messages in the batch. Every fifth has no queue to go to.
const MESSAGES: usize = 25;

/// Workers, and the messages that each may hold.
const WORKERS: u16 = 3;

async fn striker_keeper(trial: Trial) -> Result<Finding> {
    let queue = trial.queue(striker_keeper::QUEUE)?;
    let nowhere = trial.name("nowhere")?;
    let bodies: Vec<_> = (0..MESSAGES).map(|number| trial.payload(&number.to_string())).collect();
    let has_queue = |number: usize| !number.is_multiple_of(5);
    let connection = trial.connect().await?;
    trial.step("declare a queue");
    let queues = vec![Queue::new(&queue, QueueType::Exclusive)];
    Topology { queues, ..Topology::default() }.declare(&connection).await?;

    trial.step(format!("get the outcomes of {MESSAGES} messages"));
    let key = |number| if has_queue(number) { &queue } else { &nowhere };
    let batch: Vec<_> =
        bodies.iter().enumerate().map(|(number, body)| shot("", key(number), body, body)).collect();
    let outcomes = Publisher::new(&connection, 1).publish_batch(&batch).await;
    let outcome = |outcome: Outcome| match outcome {
        Outcome::Confirmed => Ok("confirmed"),
        Outcome::Returned { .. } => Ok("returned"),
        Outcome::Nacked => Ok("nacked"),
        Outcome::NotSent(error) | Outcome::Unknown(error) => Err(error),
    };
    let seen = outcomes.into_iter().map(outcome).collect::<Result<Vec<_>>>()?;
    let expected: Vec<_> =
        (0..MESSAGES).map(|number| if has_queue(number) { "confirmed" } else { "returned" }).collect();
    same("each message's outcome", &expected, &seen, "rabbitmqctl list_policies -p {vhost}")?;

    let expected: Vec<_> = bodies
        .into_iter()
        .enumerate()
        .filter(|(number, _)| has_queue(*number))
        .map(|(_, body)| body)
        .collect();
    let caught = Arc::new((Mutex::new(Vec::new()), Notify::new()));
    let all = expected.len();
    let catching = caught.clone();
    let handler = move |_, delivery: Delivery| {
        let caught = catching.clone();
        async move {
            let mut bodies = caught.0.lock().unwrap_or_else(PoisonError::into_inner);
            bodies.push(String::from_utf8_lossy(&delivery.data).into_owned());
            if bodies.len() == all {
                caught.1.notify_one();
            }
            Verdict::Ack
        }
    };
    trial.step(format!("receive {all} messages with {WORKERS} workers"));
    let consumer = Consumer::new(striker_keeper::QUEUE, &queue).with_workers(WORKERS).with_prefetch(WORKERS);
    tokio::select! {
        failed = consumer.run(&connection, handler) => failed?,
        () = caught.1.notified() => {}
    }
    // Which worker is first, nobody promises.
    let mut seen = caught.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut expected = expected;
    seen.sort_unstable();
    expected.sort_unstable();
    same("each message once", &expected, &seen, "rabbitmq-diagnostics log_tail")?;
    pass(format!("{MESSAGES} messages, {} of them returned, {WORKERS} workers", MESSAGES - all))
}
