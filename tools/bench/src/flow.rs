//! A flow of messages through a queue, which starts again by itself: what the recoveries are measured with.
//!
//! A contestant prints `sent N` before it publishes a message, and `got N` when it comes out of the queue.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Context, Result};
use futures_lite::StreamExt;
use futures_lite::future::try_zip;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, ConnectionProperties};
use shared::{
    Connection, ConnectionArgs, Consumer, Message, Publisher, Queue, QueueType, Shutdown, Topology, Verdict,
    say,
};
use tokio::time::sleep;

/// The pause between two messages.
const BEAT: Duration = Duration::from_millis(2);

/// A program on `shared`: a publisher and a consumer, each on a connection of its own.
pub(crate) async fn ours(args: &ConnectionArgs, queue: &str, shutdown: &Shutdown) -> Result<()> {
    let topology = Topology { queues: vec![Queue::new(queue, QueueType::Classic)], ..Topology::default() };
    let consuming = Connection::open(args, "bench-sub", shutdown).await?;
    let consumer = Consumer::new("bench", queue).with_prefetch(100).with_topology(topology.clone());
    let consume = async {
        let got = |_, delivery: lapin::message::Delivery| async move {
            say!("got {}", String::from_utf8_lossy(&delivery.data));
            Verdict::Ack
        };
        consumer.run(&consuming, got).await.map_err(anyhow::Error::from)
    };
    let publishing = Connection::open(args, "bench-pub", shutdown).await?;
    let publisher = Publisher::new(&publishing, 1).with_topology(topology).with_resends(u32::MAX);
    let publish = async {
        for number in 1_u64.. {
            let body = number.to_string();
            say!("sent {body}");
            let properties = BasicProperties::default();
            let message = Message {
                exchange: "",
                routing_key: queue,
                mandatory: false,
                properties,
                body: body.as_bytes(),
            };
            publisher.publish(&message).await;
            sleep(BEAT).await;
        }
        Ok(())
    };
    try_zip(consume, publish).await.map(drop)
}

/// The same with lapin's own recovery.
pub(crate) async fn plain(url: &str, queue: &str) -> Result<Infallible> {
    let properties = || ConnectionProperties::default().enable_auto_recover();
    let consuming = lapin::Connection::connect(url, properties()).await?;
    let channel = consuming.create_channel().await?;
    let options = QueueDeclareOptions::durable();
    channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
    let options = BasicConsumeOptions::default();
    let mut consumer = channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    let consume = async {
        loop {
            match consumer.next().await.context("the consumer ended")? {
                Ok(delivery) => {
                    say!("got {}", String::from_utf8_lossy(&delivery.data));
                    // If it is lost, the message comes again.
                    let _ = delivery.ack(BasicAckOptions::default()).await;
                }
                Err(error) => channel.wait_for_recovery(error).await?,
            }
        }
    };
    let publishing = lapin::Connection::connect(url, properties()).await?;
    let channel = publishing.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let publish = async {
        for number in 1_u64.. {
            let body = number.to_string();
            say!("sent {body}");
            loop {
                let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
                let confirmed = async {
                    let published =
                        channel.basic_publish("".into(), queue.into(), options, body.as_bytes(), properties);
                    published.await?.await
                };
                match confirmed.await {
                    Ok(_) => break,
                    Err(error) => channel.wait_for_recovery(error).await?,
                }
            }
            sleep(BEAT).await;
        }
        anyhow::bail!("all numbers are used up")
    };
    try_zip(consume, publish).await.map(|(never, _): (Infallible, Infallible)| never)
}
