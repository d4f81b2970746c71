//! The workloads with lapin used plainly: each call awaited where it stands, on tokio's usual runtime.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use futures_lite::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::report::{Report, Watch};
use crate::seen::Seen;
use crate::workload::{ACK_EVERY, CALLERS, IN_FLIGHT, PAIRS, PREFETCH, Workload, body, number, pair_queue};

/// Does a workload, and tells how long it took; `None` for one that is not lapin's.
pub(crate) async fn run(
    url: &str,
    workload: Workload,
    messages: usize,
    queue: &str,
) -> Result<Option<Report>> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let watch = Watch::start()?;
    let channel = connection.create_channel().await?;
    let confirms = matches!(
        workload,
        Workload::Confirmed | Workload::InFlight | Workload::Callers | Workload::CallersMandatory
    );
    if confirms {
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
    }
    let job = Job { workload, messages, queue: queue.to_owned() };
    let (wrong, seen) = match workload {
        Workload::Unconfirmed => job.publish(&channel).await.map(|()| (0, None))?,
        Workload::Confirmed => (job.publish_each(&channel, 0, 1).await?, None),
        Workload::NewChannel => (job.publish_on_new_channels(&connection).await?, None),
        Workload::InFlight => (job.publish_in_flight(&channel).await?, None),
        Workload::Callers | Workload::CallersMandatory => (job.call_publisher(&channel).await?, None),
        Workload::Consume(prefetch) => (0, Some(job.consume(&channel, prefetch, 1).await?)),
        Workload::AckEvery => (0, Some(job.consume(&channel, PREFETCH, ACK_EVERY.into()).await?)),
        Workload::Rpc(callers) => {
            job.call(&channel, callers).await.map(|(wrong, seen)| (wrong, Some(seen)))?
        }
        Workload::Pairs => (0, Some(job.produce_and_consume(&connection).await?)),
        Workload::TxEach | Workload::TxBatch => return Ok(None),
    };
    // A channel that still closes when its connection does makes lapin fail.
    channel.close(200, "OK".into()).await?;
    connection.close(200, "OK".into()).await?;
    watch.stop(wrong, seen.as_ref()).map(Some)
}

/// What the program `sender` does: connects, declares its queue, sends a message with a confirm, closes.
pub(crate) async fn send_one(url: &str, queue: &str) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = confirming(&connection).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments).await?;
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let published =
        channel.basic_publish("".into(), queue.into(), options, b"Hello World!", BasicProperties::default());
    ensure!(published.await?.await? == Confirmation::Ack(None), "the message did not arrive");
    channel.close(200, "OK".into()).await?;
    connection.close(200, "OK".into()).await?;
    Ok(())
}

async fn confirming(connection: &Connection) -> Result<Channel> {
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

#[derive(Clone)]
struct Job {
    workload: Workload,
    messages: usize,
    queue: String,
}

impl Job {
    async fn publish_one(&self, channel: &Channel, number: usize) -> Result<lapin::PublisherConfirm> {
        let key = self.workload.key(&self.queue, number);
        let options =
            BasicPublishOptions { mandatory: self.workload.is_mandatory(), ..BasicPublishOptions::default() };
        let properties = self.workload.properties(number);
        Ok(channel.basic_publish("".into(), key.into(), options, &body(number), properties).await?)
    }

    fn is_wrong(&self, number: usize, confirmation: &Confirmation) -> bool {
        match confirmation {
            Confirmation::Ack(None) => self.workload.is_unroutable(number),
            Confirmation::Ack(Some(_)) => !self.workload.is_unroutable(number),
            _ => true,
        }
    }

    async fn publish(&self, channel: &Channel) -> Result<()> {
        for number in 0..self.messages {
            self.publish_one(channel, number).await?.await?;
        }
        Ok(())
    }

    /// Every `step`-th message, each with its confirm before the next.
    async fn publish_each(&self, channel: &Channel, first: usize, step: usize) -> Result<usize> {
        let mut wrong = 0;
        for number in (first..self.messages).step_by(step) {
            let confirmation = self.publish_one(channel, number).await?.await?;
            wrong += usize::from(self.is_wrong(number, &confirmation));
        }
        Ok(wrong)
    }

    async fn publish_on_new_channels(&self, connection: &Connection) -> Result<usize> {
        let mut wrong = 0;
        for number in 0..self.messages {
            let channel = confirming(connection).await?;
            let confirmation = self.publish_one(&channel, number).await?.await?;
            wrong += usize::from(self.is_wrong(number, &confirmation));
            channel.close(200, "OK".into()).await?;
        }
        Ok(wrong)
    }

    async fn publish_in_flight(&self, channel: &Channel) -> Result<usize> {
        let mut wrong = 0;
        for first in (0..self.messages).step_by(IN_FLIGHT) {
            let mut confirms = Vec::with_capacity(IN_FLIGHT);
            for number in first..self.messages.min(first + IN_FLIGHT) {
                confirms.push((number, self.publish_one(channel, number).await?));
            }
            for (number, confirm) in confirms {
                wrong += usize::from(self.is_wrong(number, &confirm.await?));
            }
        }
        Ok(wrong)
    }

    async fn call_publisher(&self, channel: &Channel) -> Result<usize> {
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let (job, channel) = (self.clone(), channel.clone());
            callers.spawn(async move { job.publish_each(&channel, caller, CALLERS).await });
        }
        callers.join_all().await.into_iter().sum()
    }

    async fn consume(&self, channel: &Channel, prefetch: u16, ack_every: usize) -> Result<Seen> {
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let consumer = channel.basic_consume(
            self.queue.as_str().into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let mut consumer = consumer.await?;
        let mut seen = Seen::new(self.messages);
        for count in 1..=self.messages {
            let delivery = consumer.next().await.context("the consumer ended")??;
            seen.note(number(&delivery.data));
            if count % ack_every == 0 || count == self.messages {
                delivery.ack(BasicAckOptions { multiple: ack_every > 1 }).await?;
            }
        }
        Ok(seen)
    }

    async fn call(&self, channel: &Channel, callers: usize) -> Result<(usize, Seen)> {
        let options = QueueDeclareOptions::exclusive();
        let reply_to = channel.queue_declare("".into(), options, FieldTable::default()).await?.name().clone();
        let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let mut replies =
            channel.basic_consume(reply_to.clone(), "".into(), options, FieldTable::default()).await?;
        let waiting: Arc<Mutex<HashMap<String, oneshot::Sender<Vec<u8>>>>> = Arc::default();
        let dispatch = tokio::spawn({
            let waiting = waiting.clone();
            async move {
                while let Some(Ok(reply)) = replies.next().await {
                    let id = reply
                        .properties
                        .correlation_id()
                        .as_ref()
                        .map(ToString::to_string)
                        .unwrap_or_default();
                    if let Some(caller) = waiting.lock().ok().and_then(|mut waiting| waiting.remove(&id)) {
                        let _ = caller.send(reply.data);
                    }
                }
            }
        });
        let mut tasks = JoinSet::new();
        for caller in 0..callers {
            let (job, channel, reply_to, waiting) =
                (self.clone(), channel.clone(), reply_to.clone(), waiting.clone());
            tasks.spawn(async move {
                let mut replies = Vec::new();
                for number in (caller..job.messages).step_by(callers) {
                    let id = number.to_string();
                    let (answer, answered) = oneshot::channel();
                    if let Ok(mut waiting) = waiting.lock() {
                        waiting.insert(id.clone(), answer);
                    }
                    let properties = BasicProperties::default()
                        .with_content_type("text/plain".into())
                        .with_correlation_id(id.as_str().into())
                        .with_reply_to(reply_to.clone());
                    let options = BasicPublishOptions::default();
                    let queue = job.queue.as_str().into();
                    channel
                        .basic_publish("".into(), queue, options, id.as_bytes(), properties)
                        .await?
                        .await?;
                    replies.push((number, answered.await?));
                }
                anyhow::Ok(replies)
            });
        }
        let (mut seen, mut wrong) = (Seen::new(self.messages), 0);
        for replies in tasks.join_all().await {
            for (asked, reply) in replies? {
                seen.note(Some(asked));
                wrong += usize::from(number(&reply) != Some(asked));
            }
        }
        dispatch.abort();
        Ok((wrong, seen))
    }

    async fn produce_and_consume(&self, connection: &Connection) -> Result<Seen> {
        let mut consumers = JoinSet::new();
        let mut producers = JoinSet::new();
        for pair in 0..PAIRS {
            let job = Self { queue: pair_queue(&self.queue, pair), ..self.clone() };
            let channel = connection.create_channel().await?;
            channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
            let options = BasicConsumeOptions::default();
            let consumer =
                channel.basic_consume(job.queue.as_str().into(), "".into(), options, FieldTable::default());
            let mut consumer = consumer.await?;
            let count = (pair..self.messages).step_by(PAIRS).count();
            consumers.spawn(async move {
                let mut numbers = Vec::with_capacity(count);
                while numbers.len() < count {
                    let delivery = consumer.next().await.context("the consumer ended")??;
                    numbers.push(number(&delivery.data));
                    delivery.ack(BasicAckOptions::default()).await?;
                }
                channel.close(200, "OK".into()).await?;
                anyhow::Ok(numbers)
            });
            let channel = connection.create_channel().await?;
            producers.spawn(async move {
                for number in (pair..job.messages).step_by(PAIRS) {
                    job.publish_one(&channel, number).await?.await?;
                }
                channel.close(200, "OK".into()).await?;
                anyhow::Ok(())
            });
        }
        for done in producers.join_all().await {
            done?;
        }
        let mut seen = Seen::new(self.messages);
        for numbers in consumers.join_all().await {
            numbers?.into_iter().for_each(|number| seen.note(number));
        }
        Ok(seen)
    }
}
