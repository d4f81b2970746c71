//! The channels of a publisher: given as soon as the broker takes messages and has what they need, kept, replaced.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use crate::link::Link;
use crate::lock::lock;
use crate::reserved::Reserved;
use crate::{CALL_DEADLINE, Connection, Error, Result, State, Topology};

/// The pause before another try to reserve a channel, when the connection is up but gave none.
const PAUSE: Duration = Duration::from_millis(50);

/// Channels of whichever generation the connection is in.
pub(crate) struct Channels {
    pub(crate) connection: Connection,
    /// What they may take, and whatever is done on them.
    pub(crate) deadline: Duration,
    /// Declared in each generation before it gives a channel.
    pub(crate) topology: Topology,
    /// The generation in which it was last declared.
    declared: AtomicU64,
    declaring: tokio::sync::Mutex<()>,
    idle: Mutex<Vec<Arc<Reserved>>>,
    shared: Kept,
    unconfirmed: Kept,
}

/// A place for a channel that many use at once.
type Kept = tokio::sync::Mutex<Option<Arc<Reserved>>>;

impl Channels {
    pub(crate) fn new(connection: &Connection) -> Self {
        Self {
            connection: connection.clone(),
            deadline: CALL_DEADLINE,
            topology: Topology::default(),
            declared: AtomicU64::new(0),
            declaring: tokio::sync::Mutex::default(),
            idle: Mutex::default(),
            shared: Kept::default(),
            unconfirmed: Kept::default(),
        }
    }

    /// An idle channel, or a new one, in confirm mode, before `end`.
    pub(crate) async fn reserve(&self, end: Instant) -> Result<Arc<Reserved>> {
        if let Some(reserved) = self.ready_now().and_then(|link| self.take_idle(&link)) {
            return Ok(reserved);
        }
        let reserve = || async {
            let link = self.ready_link().await?;
            match self.take_idle(&link) {
                Some(reserved) => Ok(reserved),
                // Where the broker allows no more channels, one may be idle next time.
                None => Reserved::confirming(link).await.map(Arc::new),
            }
        };
        Box::pin(self.retry(end, reserve)).await
    }

    /// Makes a channel idle that has no message in flight.
    pub(crate) fn give_back(&self, reserved: Arc<Reserved>) {
        lock(&self.idle).push(reserved);
    }

    /// A new channel in confirm mode, before `end`.
    pub(crate) async fn open(&self, end: Instant) -> Result<Arc<Reserved>> {
        let open = || async { Reserved::confirming(self.ready_link().await?).await.map(Arc::new) };
        self.retry(end, open).await
    }

    /// The one for messages that need none to themselves, in confirm mode, before `end`.
    pub(crate) async fn shared(&self, end: Instant) -> Result<Arc<Reserved>> {
        self.kept(end, &self.shared, Reserved::confirming).await
    }

    /// Has it not used again.
    pub(crate) fn forget_shared(&self, reserved: &Arc<Reserved>) {
        // Who has the lock is about to replace it.
        if let Ok(mut kept) = self.shared.try_lock() {
            kept.take_if(|kept| Arc::ptr_eq(kept, reserved));
        }
    }

    /// The one for messages without confirms, before `end`.
    pub(crate) async fn unconfirmed(&self, end: Instant) -> Result<Arc<Reserved>> {
        self.kept(end, &self.unconfirmed, Reserved::open).await
    }

    /// That one, if there is one, for the last time.
    pub(crate) async fn take_unconfirmed(&self) -> Option<Arc<Reserved>> {
        self.unconfirmed.lock().await.take()
    }

    /// Has the topology declared before a channel is given the next time.
    pub(crate) fn declare_again(&self) {
        self.declared.store(0, Ordering::Relaxed);
    }

    /// The channel in `place`, or a new one that is kept there from now on.
    async fn kept(
        &self,
        end: Instant,
        place: &Kept,
        open: impl AsyncFn(Arc<Link>) -> Result<Reserved>,
    ) -> Result<Arc<Reserved>> {
        let present = self.ready_now().and_then(|link| {
            place.try_lock().ok()?.as_ref().filter(|kept| kept.is_usable_on(&link)).cloned()
        });
        if let Some(reserved) = present {
            return Ok(reserved);
        }
        let keep = || async {
            let link = self.ready_link().await?;
            let mut kept = place.lock().await;
            if let Some(usable) = kept.as_ref().filter(|kept| kept.is_usable_on(&link)) {
                return Ok(usable.clone());
            }
            if let Some(old) = kept.take_if(|kept| kept.link.generation == link.generation) {
                self.tell_replaced(&old);
            }
            let reserved = Arc::new(open(link).await?);
            *kept = Some(reserved.clone());
            Ok(reserved)
        };
        Box::pin(self.retry(end, keep)).await
    }

    /// Tries a step on the way to a channel until it succeeds, or waiting cannot help, or there is no time left.
    async fn retry<T, F>(&self, end: Instant, step: impl Fn() -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let steps = async {
            loop {
                match step().await {
                    // The last failure tells more than that it was late.
                    Err(error) if error.is_transient(true) && Instant::now() + PAUSE < end => {
                        sleep(PAUSE).await;
                    }
                    result => return result,
                }
            }
        };
        timeout_at(end, steps).await.unwrap_or_else(|_| Err(self.late("reserve a channel")))
    }

    /// The present generation, if nothing has to be waited for. That is the rule, and the futures that could wait
    /// are large: it shows when they are made for nothing.
    fn ready_now(&self) -> Option<Arc<Link>> {
        let link = self.connection.present_link()?;
        let is_declared =
            self.topology.is_empty() || self.declared.load(Ordering::Relaxed) == link.generation;
        (is_declared && link.blocked().is_none()).then_some(link)
    }

    /// The present generation, once the broker takes messages and has what it needs for them.
    async fn ready_link(&self) -> Result<Arc<Link>> {
        let link = self.connection.link().await?;
        if link.blocked().is_some() {
            tokio::select! {
                () = link.unblocked() => {}
                () = self.connection.shutdown.requested() => return Err(Error::Stopped),
            }
        }
        if !self.topology.is_empty() {
            let _one_at_a_time = self.declaring.lock().await;
            if self.declared.load(Ordering::Relaxed) != link.generation {
                let setup = Reserved::open(link.clone()).await?;
                link.unless_lost(self.topology.declare_on(&setup.channel)).await?;
                setup.close().await;
                self.declared.store(link.generation, Ordering::Relaxed);
            }
        }
        Ok(link)
    }

    fn take_idle(&self, link: &Link) -> Option<Arc<Reserved>> {
        let mut idle = lock(&self.idle);
        // What makes one useless, as a loss does, may have done so to others.
        if idle.last().is_some_and(|last| !last.is_usable_on(link)) {
            idle.retain(|reserved| {
                let is_kept = reserved.is_usable_on(link);
                if !is_kept && reserved.link.generation == link.generation {
                    self.tell_replaced(reserved);
                }
                is_kept
            });
        }
        idle.pop()
    }

    fn tell_replaced(&self, reserved: &Reserved) {
        let name = self.connection.name();
        match reserved.link.recent_refusal() {
            Some(cause) => {
                let cause = Error::Ended(cause);
                tracing::warn!("{name}: a publishing channel was closed and is replaced: {cause}");
            }
            None => tracing::warn!("{name}: a publishing channel was closed and is replaced"),
        }
    }

    /// Why `step` took too long, as far as the connection's state tells.
    pub(crate) fn late(&self, step: &'static str) -> Error {
        match &*self.connection.state().borrow() {
            State::Blocked { reason, .. } => Error::Blocked { reason: reason.clone(), after: self.deadline },
            State::Reconnecting { cause, .. } => match &**cause {
                lost @ Error::Lost(_) => lost.clone(),
                _ => Error::Lost(cause.clone()),
            },
            _ => Error::Timeout { step, after: self.deadline },
        }
    }
}
