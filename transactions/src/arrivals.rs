//! What really arrived: a queue emptied to its last message, each copy counted.

use std::time::Duration;

use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel};
use shared::{CALL_DEADLINE, Connection, Deadline, Error, Result, Session, confirmed, message_id};
use tokio::time::{Instant, sleep};

use crate::{Arrivals, TrialQueue};

/// The `type` property of the message that ends the counting.
const END_MARK: &str = "end";

/// Messages that the broker may send ahead of their acknowledgements.
const PREFETCH: u16 = 500;

/// Messages that one acknowledgement settles. Fewer than the broker sends ahead, or it would wait for more.
const ACK_EVERY: u64 = 100;

/// The pause before the end mark is offered again to a queue that is full.
const FULL: Duration = Duration::from_millis(20);

/// Consumes all that is in the queue and counts the copies of each message.
///
/// Queues are first in, first out: an end mark, published once the consumer is there, comes after
/// everything that was in the queue before. So nothing has to be waited for that may never come.
///
/// # Errors
/// As [`Connection::session`].
pub async fn collect(connection: &Connection, queue: &TrialQueue) -> Result<Arrivals> {
    // Kept over a lost connection: what was acknowledged on it does not come again.
    let mut arrivals = Arrivals::new();
    connection.session(async |session| collect_in(&session, &queue.name, &mut arrivals).await).await?;
    Ok(arrivals)
}

async fn collect_in(session: &Session, queue: &str, arrivals: &mut Arrivals) -> Result<()> {
    let channel = &session.channel;
    channel.confirm_select(ConfirmSelectOptions::default()).deadline("switch on publisher confirms").await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).deadline("set QoS").await?;
    let consumer =
        channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = consumer.deadline("register a consumer").await?;
    let end = message_id();
    publish_end_mark(channel, queue, &end).await?;
    while let Some(delivery) = session.next(&mut consumer).await? {
        let properties = &delivery.properties;
        let id = properties.message_id().as_ref().map_or("", |id| id.as_str());
        let is_mark = properties.kind().as_ref().is_some_and(|kind| kind.as_str() == END_MARK);
        let is_end = is_mark && id == end;
        // Other marks are of an attempt that lost its connection.
        if !is_mark {
            count(arrivals, id, delivery.redelivered);
        }
        // The tags of a channel count from 1. An acknowledgement of many is as good as one of each, and the
        // queue is empty in a third of the time.
        if is_end || delivery.delivery_tag.is_multiple_of(ACK_EVERY) {
            let acknowledged = channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true });
            acknowledged.deadline("acknowledge messages").await?;
        }
        if is_end {
            return Ok(());
        }
    }
    Err(Error::Stopped)
}

async fn publish_end_mark(channel: &Channel, queue: &str, id: &str) -> Result<()> {
    let give_up = Instant::now() + CALL_DEADLINE;
    loop {
        let properties = BasicProperties::default().with_type(END_MARK.into()).with_message_id(id.into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published = channel.basic_publish("".into(), queue.into(), options, b"", properties);
        let confirm = published.deadline("publish a message").await?;
        match confirmed(confirm.deadline("get the broker's confirm").await?) {
            // A full queue has room again once it has sent a message to the consumer.
            Err(Error::Nacked) if Instant::now() < give_up => sleep(FULL).await,
            settled => return settled,
        }
    }
}

/// Counts a message. One that comes a second time because its acknowledgement was lost is not a double.
fn count(arrivals: &mut Arrivals, id: &str, redelivered: bool) {
    let copies = arrivals.entry(id.to_owned()).or_default();
    if *copies == 0 || !redelivered {
        *copies += 1;
    }
}
