//! Acknowledgements on their way: written one after the other without a wait for each, and never forgotten.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use futures_lite::future::poll_once;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicRejectOptions};
use tokio::time::{Instant, sleep, timeout_at};

use crate::idle::wake_sleepers_at_work;
use crate::lock::lock;
use crate::{CALL_DEADLINE, Error, Result, Tally};

/// How many may be under way before the next one has to wait.
const MOST: usize = 64;

/// When there is nothing else to do, what is under way is looked after so much later. lapin wakes whoever
/// waits for a write, and a wake-up costs more than the write; by then it is mostly done.
const LOOK_AFTER: Duration = Duration::from_millis(100);

/// What is told to the broker about a delivery.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Settlement {
    Ack,
    Requeue,
    Reject,
}

/// A settlement that lapin has been given.
struct Write {
    done: BoxFuture<'static, lapin::Result<()>>,
    settlement: Settlement,
    /// How many deliveries it is about.
    deliveries: u64,
    end: Instant,
}

/// The settlements of one consumer that lapin has not written to the socket yet.
pub(crate) struct Writes<'t> {
    channel: Channel,
    /// How many acknowledgements are told to the broker as one.
    ack_every: u64,
    /// The tag of the last of those that it was not told yet, and how many they are.
    untold: Option<(u64, u64)>,
    /// In the order in which lapin writes them.
    under_way: VecDeque<Write>,
    tally: &'t Mutex<Tally>,
}

impl<'t> Writes<'t> {
    /// Settlements on `channel`, which the deliveries came on; `tally` counts those that have left. With `ack_every`
    /// above 1 nobody else may settle on the channel.
    pub(crate) fn new(channel: &Channel, ack_every: u16, tally: &'t Mutex<Tally>) -> Self {
        let (channel, ack_every) = (channel.clone(), ack_every.into());
        Self { channel, ack_every, untold: None, under_way: VecDeque::new(), tally }
    }

    /// Starts to settle a delivery, the next one after the last. Waits only while too many are under way, or if the
    /// thread has been at work for long.
    pub(crate) async fn start(&mut self, delivery_tag: u64, settlement: Settlement) -> Result<()> {
        if settlement == Settlement::Ack && self.ack_every > 1 {
            let deliveries = self.untold.map_or(0, |(_, deliveries)| deliveries) + 1;
            self.untold = Some((delivery_tag, deliveries));
            if deliveries >= self.ack_every {
                self.tell()?;
            }
        } else {
            self.write(delivery_tag, settlement, 1)?;
        }
        self.collect()?;
        // A handler that keeps the thread must not keep the acknowledgements of earlier messages.
        let most = if wake_sleepers_at_work() { 0 } else { MOST };
        while self.under_way.len() > most {
            self.next().await?;
        }
        Ok(())
    }

    /// Awaits `work`. If it takes time, the broker is told what it was not told yet.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = pin!(work);
        if let Some(value) = poll_once(&mut work).await {
            return Ok(value);
        }
        self.tell()?;
        if !self.under_way.is_empty() {
            tokio::select! {
                biased;
                value = &mut work => return Ok(value),
                () = sleep(LOOK_AFTER) => {}
            }
        }
        while !self.under_way.is_empty() {
            tokio::select! {
                biased;
                value = &mut work => return Ok(value),
                written = self.next() => written?,
            }
        }
        Ok(work.await)
    }

    /// Waits until all are written.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        self.tell()?;
        while !self.under_way.is_empty() {
            self.next().await?;
        }
        Ok(())
    }

    fn tell(&mut self) -> Result<()> {
        match self.untold.take() {
            Some((delivery_tag, deliveries)) => self.write(delivery_tag, Settlement::Ack, deliveries),
            None => Ok(()),
        }
    }

    /// Gives a settlement to lapin.
    fn write(&mut self, delivery_tag: u64, settlement: Settlement, deliveries: u64) -> Result<()> {
        let channel = self.channel.clone();
        let multiple = deliveries > 1;
        let mut done: BoxFuture<'static, _> = Box::pin(async move {
            let reject = |requeue| channel.basic_reject(delivery_tag, BasicRejectOptions { requeue });
            match settlement {
                Settlement::Ack => channel.basic_ack(delivery_tag, BasicAckOptions { multiple }).await,
                Settlement::Requeue => reject(true).await,
                Settlement::Reject => reject(false).await,
            }
        });
        // lapin takes it at the first poll, and need not wake anybody for it.
        match done.as_mut().now_or_never() {
            Some(result) => self.note(settlement, deliveries, Ok(result)),
            None => {
                let end = Instant::now() + CALL_DEADLINE;
                self.under_way.push_back(Write { done, settlement, deliveries, end });
                Ok(())
            }
        }
    }

    /// Notes those that are written by now.
    fn collect(&mut self) -> Result<()> {
        while let Some(Write { done, settlement, deliveries, .. }) = self.under_way.front_mut() {
            let Some(result) = done.as_mut().now_or_never() else { break };
            let (settlement, deliveries) = (*settlement, *deliveries);
            self.under_way.pop_front();
            self.note(settlement, deliveries, Ok(result))?;
        }
        Ok(())
    }

    /// Waits for the oldest.
    async fn next(&mut self) -> Result<()> {
        let Some(Write { done, settlement, deliveries, end }) = self.under_way.front_mut() else {
            return Ok(());
        };
        let (settlement, deliveries) = (*settlement, *deliveries);
        let result = timeout_at(*end, done).await.map_err(|_| ());
        self.under_way.pop_front();
        self.note(settlement, deliveries, result)
    }

    /// An error of the outer result is a timeout.
    fn note(
        &self,
        settlement: Settlement,
        deliveries: u64,
        result: Result<lapin::Result<()>, ()>,
    ) -> Result<()> {
        let step = match settlement {
            Settlement::Ack => "acknowledge a message",
            Settlement::Requeue => "requeue a message",
            Settlement::Reject => "reject a message",
        };
        match result {
            Ok(Ok(())) => {
                lock(self.tally).note_settled(settlement, deliveries);
                Ok(())
            }
            Ok(Err(cause)) => Err(Error::Refused { step, cause }),
            Err(()) => Err(Error::Timeout { step, after: CALL_DEADLINE }),
        }
    }
}
