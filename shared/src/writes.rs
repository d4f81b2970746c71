//! Acknowledgements on their way: written one after the other without a wait for each, and never forgotten.

use std::pin::{Pin, pin};

use futures_lite::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicRejectOptions};

use crate::{Deadline, Result};

/// How many may be under way before the next one has to wait.
const MOST: usize = 64;

/// What is told to the broker about a delivery.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Settlement {
    Ack,
    Requeue,
    Reject,
}

type Write = Pin<Box<dyn Future<Output = Result<Settlement>> + Send>>;

/// The settlements of one consumer that lapin has not written to the socket yet.
pub(crate) struct Writes<F> {
    channel: Channel,
    under_way: FuturesUnordered<Write>,
    written: F,
}

impl<F: FnMut(Settlement)> Writes<F> {
    /// Settlements on `channel`, which the deliveries came on; `written` is told of each once it has left.
    pub(crate) fn new(channel: &Channel, written: F) -> Self {
        Self { channel: channel.clone(), under_way: FuturesUnordered::new(), written }
    }

    /// Starts to settle a delivery; waits only while too many are under way.
    pub(crate) async fn start(&mut self, delivery_tag: u64, settlement: Settlement) -> Result<()> {
        let channel = self.channel.clone();
        self.under_way.push(Box::pin(async move {
            let reject = |requeue| channel.basic_reject(delivery_tag, BasicRejectOptions { requeue });
            match settlement {
                Settlement::Ack => {
                    let ack = channel.basic_ack(delivery_tag, BasicAckOptions::default());
                    ack.deadline("acknowledge a message").await?;
                }
                Settlement::Requeue => reject(true).deadline("requeue a message").await?,
                Settlement::Reject => reject(false).deadline("reject a message").await?,
            }
            Ok(settlement)
        }));
        while self.under_way.len() > MOST {
            self.next().await?;
        }
        Ok(())
    }

    /// Awaits `work` and drives the settlements meanwhile.
    pub(crate) async fn during<T>(&mut self, work: impl Future<Output = T>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                written = self.next(), if !self.under_way.is_empty() => written?,
                value = &mut work => return Ok(value),
            }
        }
    }

    /// Waits until all are written.
    pub(crate) async fn finish(&mut self) -> Result<()> {
        while !self.under_way.is_empty() {
            self.next().await?;
        }
        Ok(())
    }

    async fn next(&mut self) -> Result<()> {
        if let Some(settlement) = self.under_way.next().await {
            (self.written)(settlement?);
        }
        Ok(())
    }
}
