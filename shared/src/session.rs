//! What a program does on one channel of one generation.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use futures_lite::StreamExt;
use futures_lite::future::poll_once;
use lapin::message::Delivery;
use lapin::options::BasicCancelOptions;
use lapin::types::ShortString;
use lapin::{Channel, Consumer};

use crate::lock::lock;
use crate::{Deadline, Error, Result, Shutdown};

/// A fresh channel, and the way to consume on it until the program is asked to stop.
pub struct Session {
    /// lapin's channel. It belongs to this session alone.
    pub channel: Channel,
    shutdown: Shutdown,
    ready: Arc<AtomicBool>,
    /// The tags of the consumers that were cancelled because the program is to stop.
    cancelled: Mutex<Vec<ShortString>>,
}

impl Session {
    pub(crate) fn new(channel: Channel, shutdown: Shutdown, ready: Arc<AtomicBool>) -> Self {
        Self { channel, shutdown, ready, cancelled: Mutex::default() }
    }

    /// The consumer's next message; `None` once the program was asked to stop and what the broker had
    /// already sent is used up.
    ///
    /// On that request the consumer is cancelled first, so that the broker sends nothing more.
    ///
    /// # Errors
    /// [`Error::ConsumerCancelled`] when the broker ended the consumer, [`Error::Refused`] when the
    /// channel or the connection ended.
    pub async fn next(&self, consumer: &mut Consumer) -> Result<Option<Delivery>> {
        self.ready();
        let tag = consumer.tag();
        let delivery = self.cancelling(&tag, consumer.next()).await?;
        match delivery {
            Some(Ok(delivery)) => Ok(Some(delivery)),
            Some(Err(cause)) => Err(Error::Refused { step: "receive", cause }),
            None if lock(&self.cancelled).contains(&tag) => Ok(None),
            None => Err(Error::ConsumerCancelled { queue: consumer.queue().to_string() }),
        }
    }

    /// Awaits `work`, and cancels the consumer meanwhile as soon as the program is asked to stop.
    pub(crate) async fn cancelling<T>(&self, tag: &ShortString, work: impl Future<Output = T>) -> Result<T> {
        let mut work = pin!(work);
        // To wait for the request costs more than what is there already.
        if !self.shutdown.is_requested()
            && let Some(value) = poll_once(&mut work).await
        {
            return Ok(value);
        }
        let cancelled = lock(&self.cancelled).contains(tag);
        tokio::select! {
            biased;
            () = self.shutdown.requested(), if !cancelled => {
                lock(&self.cancelled).push(tag.clone());
                let cancel = self.channel.basic_cancel(tag.clone(), BasicCancelOptions::default());
                cancel.deadline("cancel the consumer").await?;
            }
            value = &mut work => return Ok(value),
        }
        Ok(work.await)
    }

    /// Notes that everything this session needs is in place. From now on something that is missing or
    /// locked counts as a passing fault, and the session is tried again. [`Session::next`] does it too.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// The program's shutdown, for bodies that wait for other things than messages.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }
}
