//! What every check of messages needs: exactly these, in this order, and no others.

use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Consumer};
use shared::{Deadline, Result};

use crate::check::{Fault, Stop};
use crate::trial::{Trial, random_word};

/// Publishes a message and returns once the broker has confirmed that a queue has it.
pub(crate) async fn publish(
    trial: &Trial,
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &str,
) -> Result<()> {
    publish_bytes(trial, channel, exchange, key, body.as_bytes()).await
}

/// The same with any bytes.
pub(crate) async fn publish_bytes(
    trial: &Trial,
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &[u8],
) -> Result<()> {
    trial.step("get the broker's confirm for a message");
    queue_lifecycle::publish(channel, exchange, key, BasicProperties::default(), body).await
}

/// Publishes many messages to a queue and waits for the confirms afterwards.
pub(crate) async fn publish_all(
    trial: &Trial,
    channel: &Channel,
    queue: &str,
    bodies: &[String],
) -> Result<()> {
    channel.confirm_select(ConfirmSelectOptions::default()).deadline("switch on publisher confirms").await?;
    let mut confirms = Vec::with_capacity(bodies.len());
    trial.step(format!("publish {} messages", bodies.len()));
    for body in bodies {
        let published = channel.basic_publish(
            "".into(),
            queue.into(),
            BasicPublishOptions::default(),
            body.as_bytes(),
            BasicProperties::default(),
        );
        confirms.push(published.deadline("publish a message").await?);
    }
    trial.step(format!("get the broker's confirms for {} messages", bodies.len()));
    for confirm in confirms {
        shared::confirmed(confirm.deadline("get the broker's confirm").await?)?;
    }
    Ok(())
}

/// Starts a consumer that needs no acknowledgements.
pub(crate) async fn consume(trial: &Trial, channel: &Channel, queue: &str) -> Result<Consumer> {
    trial.step("register a consumer");
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    queue_lifecycle::consume(channel, queue, options).await
}

/// Starts a consumer that acknowledges, with these arguments and so many messages in hand.
pub(crate) async fn consume_with(
    trial: &Trial,
    channel: &Channel,
    queue: &str,
    prefetch: u16,
    arguments: FieldTable,
) -> Result<Consumer> {
    trial.step("register a consumer");
    channel.basic_qos(prefetch, lapin::options::BasicQosOptions::default()).deadline("set QoS").await?;
    let options = BasicConsumeOptions::default();
    let consumer = channel.basic_consume(queue.into(), "".into(), options, arguments);
    consumer.deadline("register a consumer").await
}

/// The consumer's next message.
pub(crate) async fn next(trial: &Trial, consumer: &mut Consumer) -> Result<Delivery> {
    trial.step(format!("get a message from the queue {}", consumer.queue()));
    queue_lifecycle::next(consumer).await
}

/// Takes these messages, in this order. Others may follow.
pub(crate) async fn expect(
    trial: &Trial,
    consumer: &mut Consumer,
    bodies: &[String],
) -> Result<Vec<Delivery>> {
    let mut taken = Vec::with_capacity(bodies.len());
    for at in 0..bodies.len() {
        trial.step(format!("get message {} of {} from the queue {}", at + 1, bodies.len(), consumer.queue()));
        let delivery = queue_lifecycle::next(consumer).await?;
        taken.push(delivery);
        if let Some(fault) = compare(bodies, &as_texts(&taken)) {
            return Err(Stop::Fault(fault).into());
        }
    }
    Ok(taken)
}

/// Takes these messages, in this order, and makes sure that no other follows: the next one is what is put
/// behind them now.
pub(crate) async fn expect_only(
    trial: &Trial,
    channel: &Channel,
    consumer: &mut Consumer,
    bodies: &[String],
) -> Result<Vec<Delivery>> {
    let taken = expect(trial, consumer, bodies).await?;
    let end = format!("end mark {}", random_word());
    publish(trial, channel, "", consumer.queue().as_str(), &end).await?;
    let next = next(trial, consumer).await?;
    if next.data != end.as_bytes() {
        let mut seen = as_texts(&taken);
        seen.push(String::from_utf8_lossy(&next.data).into_owned());
        return Err(Stop::Fault(surplus(bodies, &seen)).into());
    }
    Ok(taken)
}

/// An error unless two values are the same.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    expected: &T,
    seen: &T,
    next: &str,
) -> Result<()> {
    if expected == seen {
        return Ok(());
    }
    Err(crate::check::fault(format!("{what} {expected:?}"), format!("{seen:?}"), next))
}

fn as_texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(|delivery| String::from_utf8_lossy(&delivery.data).into_owned()).collect()
}

/// What is wrong with the last message that was seen, if anything.
fn compare(expected: &[String], seen: &[String]) -> Option<Fault> {
    let (last, before) = seen.split_last()?;
    let at = before.len();
    if expected.get(at) == Some(last) {
        return None;
    }
    let position = expected.iter().position(|body| body == last);
    let (what, next) = match position {
        Some(earlier) if earlier < at => return Some(surplus(expected, seen)),
        Some(later) => (
            format!("message {} in its place: out of order", later + 1),
            "something between this program and the broker reorders messages, or message {n} is lost",
        ),
        None => (
            format!("{}: not what was sent", short(last)),
            "something between this program and the broker changes or mixes up messages",
        ),
    };
    let number = at + 1;
    Some(Fault {
        expected: match expected.get(at) {
            Some(body) => format!("{} as message {number} of {}", short(body), expected.len()),
            None => format!("{} messages and no other", expected.len()),
        },
        seen: what,
        next: next.replace("{n}", &number.to_string()),
    })
}

/// The fault of a message that is one too many.
fn surplus(expected: &[String], seen: &[String]) -> Fault {
    let last = seen.last().map_or("", String::as_str);
    let (seen, next) = match expected.iter().position(|body| body == last) {
        Some(at) => (
            format!("message {} a second time: duplicated", at + 1),
            "something between this program and the broker duplicates messages",
        ),
        None => (
            format!("{} as well", short(last)),
            "another publisher uses this program's queues, or something changes messages: rabbitmqctl list_bindings -p {vhost}",
        ),
    };
    Fault { expected: format!("{} messages and no other", expected.len()), seen, next: next.to_owned() }
}

/// A body in quotation marks, or its beginning.
fn short(body: &str) -> String {
    const LONGEST: usize = 80;
    match body.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("'{}…' ({} bytes)", &body[..end], body.len()),
        None => format!("'{body}'"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(seen: &[&str]) -> Option<String> {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
        let fault = compare(&texts(&["a", "b", "c"]), &texts(seen))?;
        Some(format!("{} | {} | {}", fault.expected, fault.seen, fault.next))
    }

    #[test]
    fn the_fault_names_what_became_of_a_message() {
        assert_eq!(verdict(&[]), None);
        assert_eq!(verdict(&["a", "b", "c"]), None);
        for (seen, words) in [
            (&["b"][..], "'a' as message 1 of 3 | message 2 in its place: out of order"),
            (&["a", "a"], "message 1 a second time: duplicated"),
            (&["a", "B"], "'b' as message 2 of 3 | 'B': not what was sent"),
            (&["a", "b", "c", "c"], "message 3 a second time"),
        ] {
            let fault = verdict(seen).unwrap();
            assert!(fault.contains(words), "{seen:?}: {fault}");
        }
    }

    #[test]
    fn long_bodies_are_cut() {
        assert_eq!(short("a"), "'a'");
        let long = short(&"é".repeat(1000));
        assert!(long.chars().count() < 110 && long.ends_with("(2000 bytes)"), "{long}");
    }
}
