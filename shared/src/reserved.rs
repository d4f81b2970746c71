//! A channel that a publisher keeps, until what happens on it is in doubt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::link::{GRACE, Link};
use crate::{Deadline, Result};

/// How many messages share a channel at once.
const SHARERS: usize = 1000;

/// How long a refusal may be on its way.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// A channel and the connection it belongs to.
pub(crate) struct Reserved {
    pub(crate) link: Arc<Link>,
    pub(crate) channel: Channel,
    /// For those that share it.
    pub(crate) places: Semaphore,
    /// Whether it is not to be used again.
    spoiled: AtomicBool,
}

impl Reserved {
    pub(crate) async fn open(link: Arc<Link>) -> Result<Self> {
        let channel = link.channel().await?;
        Ok(Self { link, channel, places: Semaphore::new(SHARERS), spoiled: AtomicBool::new(false) })
    }

    /// The same in confirm mode.
    pub(crate) async fn confirming(link: Arc<Link>) -> Result<Self> {
        let reserved = Self::open(link).await?;
        let confirms = reserved.channel.confirm_select(ConfirmSelectOptions::default());
        reserved.link.unless_lost(confirms.deadline("switch on publisher confirms")).await?;
        Ok(reserved)
    }

    /// Whether it can be used, and is of the generation of `link`.
    pub(crate) fn is_usable_on(&self, link: &Link) -> bool {
        self.link.generation == link.generation
            && self.channel.status().connected()
            && !self.spoiled.load(Ordering::Relaxed)
    }

    /// Has it not used again; whether this is the first to say so.
    pub(crate) fn spoil(&self) -> bool {
        !self.spoiled.swap(true, Ordering::Relaxed)
    }

    /// Closes the channel, whose last answer has been seen.
    pub(crate) async fn close(&self) {
        let _ = timeout(GRACE, self.channel.close(200, "OK".into())).await;
    }
}

/// A channel whose messages have no known outcome. Dropping it leaves the channel open for a moment more.
///
/// The broker may be about to refuse a message. lapin takes a channel that is closed before it has seen
/// that refusal for a broken connection.
pub(crate) struct InDoubt(Option<Arc<Reserved>>);

impl InDoubt {
    pub(crate) fn new(reserved: &Arc<Reserved>) -> Self {
        Self(Some(reserved.clone()))
    }

    pub(crate) fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for InDoubt {
    fn drop(&mut self) {
        let Some(reserved) = self.0.take() else { return };
        reserved.spoil();
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                tokio::select! {
                    () = sleep(REFUSAL_TIME) => {}
                    _ = reserved.link.lost() => {}
                }
            });
        }
    }
}
