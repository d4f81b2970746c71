//! The server of the RPC workloads: it answers each question with the question, the same for all contestants.

use std::io::Read;
use std::process::exit;
use std::{io, thread};

use anyhow::{Context, Result};
use futures_lite::StreamExt;
use futures_lite::future::poll_once;
use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};

/// The line that says that it is ready.
pub(crate) const READY: &str = "ready";

/// Writes to the socket that are awaited together.
const WRITES: usize = 32;

/// Serves until standard input ends, which whoever started it holds.
pub(crate) async fn serve(url: &str, queue: &str) -> Result<()> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut questions =
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await?;
    thread::spawn(|| {
        let _ = io::stdin().read_to_end(&mut Vec::new());
        exit(0);
    });
    println!("{READY}");
    let mut writes = Vec::with_capacity(WRITES);
    while let Some(question) = questions.next().await {
        let question = question?;
        let asker = question.properties.reply_to().clone().context("no reply_to")?;
        let id = question.properties.correlation_id().clone().context("no correlation id")?;
        let (channel, properties) = (channel.clone(), BasicProperties::default().with_correlation_id(id));
        let mut write = Box::pin(async move {
            let options = BasicPublishOptions::default();
            channel.basic_publish("".into(), asker, options, &question.data, properties).await?.await
        });
        match poll_once(&mut write).await {
            Some(written) => drop(written?),
            None => writes.push(write),
        }
        if writes.len() == WRITES {
            for write in writes.drain(..) {
                write.await?;
            }
        }
    }
    Ok(())
}
