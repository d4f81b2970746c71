//! Publishing that tells what became of each message.

use std::borrow::Cow;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::link::{GRACE, Link};
use crate::retry::Backoff;
use crate::window::{Window, windows, write_unconfirmed};
use crate::{
    CALL_DEADLINE, Connection, Deadline, Error, Message, Outcome, Result, RetryPolicy, State, Topology,
};

/// The pause before another try to reserve a channel, when the connection is up but gave none.
const RESERVE_PAUSE: Duration = Duration::from_millis(50);

/// How long a refusal may be on its way.
const REFUSAL_TIME: Duration = Duration::from_secs(2);

/// How many messages of a batch are in flight at once unless it is said otherwise.
const WINDOW: usize = 1000;

/// Publishes on reserved channels of a [`Connection`], whichever generation it is in.
///
/// One message, or one batch, at a time is in flight on each channel, which makes the outcome of each exact:
/// lapin hands a returned message to whichever confirm comes next. Keep one publisher and share it.
pub struct Publisher {
    connection: Connection,
    deadline: Duration,
    window: usize,
    resends: u32,
    topology: Topology,
    /// The generation in which the topology was last declared.
    declared: tokio::sync::Mutex<u64>,
    places: Semaphore,
    idle: Mutex<Vec<Arc<Reserved>>>,
    unconfirmed: Mutex<Option<Arc<Reserved>>>,
    resent: AtomicU64,
}

/// A channel and the connection it belongs to.
struct Reserved {
    link: Arc<Link>,
    channel: Channel,
}

impl Publisher {
    /// At most `channels` messages or batches are in flight at once; further ones wait their turn. At least 1.
    #[must_use]
    pub fn new(connection: &Connection, channels: usize) -> Self {
        Self {
            connection: connection.clone(),
            deadline: CALL_DEADLINE,
            window: WINDOW,
            resends: 0,
            topology: Topology::default(),
            declared: tokio::sync::Mutex::default(),
            places: Semaphore::new(channels.max(1)),
            idle: Mutex::default(),
            unconfirmed: Mutex::default(),
            resent: AtomicU64::new(0),
        }
    }

    /// The same publisher with another limit for each message, or window of a batch, than [`CALL_DEADLINE`].
    #[must_use]
    pub fn with_deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// The same publisher with another number of messages in flight in a batch than 1000. At least 1.
    #[must_use]
    pub fn with_window(self, messages: usize) -> Self {
        Self { window: messages.max(1), ..self }
    }

    /// The same publisher, which declares `topology` before it publishes in each generation, and again once
    /// an exchange is missing.
    #[must_use]
    pub fn with_topology(self, topology: Topology) -> Self {
        Self { topology, ..self }
    }

    /// The same publisher, which sends a message again, up to `times` times, when it was not sent or its
    /// outcome is unknown and another try may end better.
    ///
    /// That is delivery *at least once*: what was unknown may arrive twice, with the same message id (one
    /// is made up where there is none), and later than what was published after it.
    #[must_use]
    pub fn with_resends(self, times: u32) -> Self {
        Self { resends: times, ..self }
    }

    /// How often a message was sent again so far.
    #[must_use]
    pub fn resent(&self) -> u64 {
        self.resent.load(Ordering::Relaxed)
    }

    /// Publishes a message and waits for what becomes of it, up to the deadline. While there is no
    /// connection, or the broker blocks publishing, that time is spent waiting for it.
    ///
    /// Dropping the future leaves the outcome unknown and costs the channel. Needs a tokio runtime.
    pub async fn publish(&self, message: &Message<'_>) -> Outcome {
        let messages = self.identified(slice::from_ref(message));
        let mut outcomes = self.publish_window(&messages).await;
        // A window of one message has one outcome.
        let outcome = outcomes.pop().unwrap_or(Outcome::NotSent(Error::Stopped));
        self.resend(&messages[0], outcome).await
    }

    /// Publishes many messages, in order, on one channel, and tells what became of each. A window of them is
    /// in flight at once; the deadline is for each window.
    ///
    /// Mandatory messages need a message id each, and get one where they have none: a returned message is
    /// known by it.
    pub async fn publish_batch(&self, messages: &[Message<'_>]) -> Vec<Outcome> {
        let messages = self.identified(messages);
        let mut outcomes = Vec::with_capacity(messages.len());
        for window in windows(&messages, self.window) {
            for (message, outcome) in window.iter().zip(self.publish_window(window).await) {
                outcomes.push(self.resend(message, outcome).await);
            }
        }
        outcomes
    }

    /// Publishes a message on a channel that is opened for it and closed after it: what publishing with
    /// confirms costs without reserved channels.
    pub async fn publish_on_new_channel(&self, message: &Message<'_>) -> Outcome {
        let end = Instant::now() + self.deadline;
        let Ok(Ok(_place)) = timeout_at(end, self.places.acquire()).await else {
            return Outcome::NotSent(self.late("reserve a channel"));
        };
        let reserved = match self.in_time(end, self.reserve_new(Reserved::confirming)).await {
            Ok(reserved) => Arc::new(reserved),
            Err(error) => return Outcome::NotSent(error),
        };
        let outcome = self.settle(&reserved, slice::from_ref(message), end).await.pop();
        let outcome = outcome.unwrap_or(Outcome::NotSent(Error::Stopped));
        if outcome.unsettled().is_none() {
            reserved.close().await;
        }
        outcome
    }

    /// Writes messages to a reserved channel without confirms, and forgets them. `Ok` says that they left:
    /// a broker that dies, a missing exchange or a key without a queue loses them silently. None of them is
    /// mandatory.
    ///
    /// # Errors
    /// Why they, or some of them, did not leave in time.
    pub async fn publish_unconfirmed(&self, messages: &[Message<'_>]) -> Result<()> {
        for window in windows(messages, self.window) {
            let end = Instant::now() + self.deadline;
            let reserved = self.in_time(end, self.reserve_unconfirmed()).await?;
            let written = tokio::select! {
                biased;
                written = timeout_at(end, write_unconfirmed(&reserved.channel, window)) => {
                    written.unwrap_or_else(|_| Err(self.late("write a message")))
                }
                cause = reserved.link.lost() => Err(Error::Lost(cause)),
            };
            if let Err(error) = written {
                reserved.link.suspect();
                self.lock(&self.unconfirmed).take();
                return Err(error);
            }
        }
        Ok(())
    }

    /// The messages, each with an id where one will be needed.
    fn identified<'a, 'm>(&self, messages: &'a [Message<'m>]) -> Cow<'a, [Message<'m>]> {
        let among_others = messages.len() > 1;
        let needed = |message: &Message<'_>| {
            message.id().is_none() && (self.resends > 0 || among_others && message.mandatory)
        };
        if messages.iter().any(needed) {
            messages.iter().cloned().map(Message::identified).collect()
        } else {
            Cow::Borrowed(messages)
        }
    }

    async fn publish_window(&self, messages: &[Message<'_>]) -> Vec<Outcome> {
        let end = Instant::now() + self.deadline;
        let not_sent = |error: &Error| messages.iter().map(|_| Outcome::NotSent(error.clone())).collect();
        // The semaphore is never closed, so an error is a timeout.
        let Ok(Ok(_place)) = timeout_at(end, self.places.acquire()).await else {
            return not_sent(&self.late("reserve a channel"));
        };
        let reserved = match self.in_time(end, self.reserve()).await {
            Ok(reserved) => reserved,
            Err(error) => return not_sent(&error),
        };
        let outcomes = self.settle(&reserved, messages, end).await;
        match outcomes.iter().find_map(Outcome::unsettled) {
            None => self.lock(&self.idle).push(reserved),
            Some(Error::Refused { cause, .. })
                if matches!(cause.kind(), lapin::ErrorKind::ProtocolError(_)) =>
            {
                // The exchange may be the one that was declared.
                *self.declared.lock().await = 0;
            }
            Some(_) => {}
        }
        outcomes
    }

    /// Publishes on a reserved channel that nobody else uses meanwhile.
    async fn settle(&self, reserved: &Arc<Reserved>, messages: &[Message<'_>], end: Instant) -> Vec<Outcome> {
        let in_doubt = InDoubt(Some(reserved.clone()));
        let mut window = Window::new(messages);
        let late = tokio::select! {
            biased;
            done = timeout_at(end, window.publish(&reserved.channel)) => {
                done.err().map(|_| self.late("get the broker's confirm"))
            }
            cause = reserved.link.lost() => Some(Error::Lost(cause)),
        };
        let late = late.unwrap_or(Error::Stopped);
        let outcomes = window.outcomes(&late);
        match outcomes.iter().find_map(Outcome::unsettled) {
            None => in_doubt.settled(),
            Some(error) => {
                // A channel in any other state is not used again.
                reserved.link.suspect();
                if !reserved.link.is_lost() {
                    tracing::warn!("{}: {error}; the publishing channel is replaced", self.connection.name());
                }
            }
        }
        outcomes
    }

    /// Sends an unsettled message again, as often as is allowed and may help.
    async fn resend(&self, message: &Message<'_>, mut outcome: Outcome) -> Outcome {
        let mut maybe_arrived = false;
        let mut backoff = Backoff::new(RetryPolicy { attempts: 0, ..self.connection.retry });
        for _ in 0..self.resends {
            if self.connection.shutdown.is_requested() || !outcome.unsettled().is_some_and(may_pass) {
                break;
            }
            maybe_arrived |= matches!(outcome, Outcome::Unknown(_));
            tokio::select! {
                () = sleep(backoff.failed().unwrap_or_default()) => {}
                () = self.connection.shutdown.requested() => break,
            }
            self.resent.fetch_add(1, Ordering::Relaxed);
            let mut outcomes = self.publish_window(slice::from_ref(message)).await;
            outcome = outcomes.pop().unwrap_or(outcome);
        }
        match outcome {
            Outcome::NotSent(error) if maybe_arrived => Outcome::Unknown(error),
            outcome => outcome,
        }
    }

    /// An idle channel of the present generation, or a new one.
    async fn reserve(&self) -> Result<Arc<Reserved>> {
        let link = self.ready_link().await?;
        if let Some(reserved) = self.take_idle(&link) {
            return Ok(reserved);
        }
        self.reserve_new(Reserved::confirming).await.map(Arc::new)
    }

    async fn reserve_unconfirmed(&self) -> Result<Arc<Reserved>> {
        let link = self.ready_link().await?;
        let kept = self.lock(&self.unconfirmed).clone();
        if let Some(kept) = kept.filter(|kept| kept.link.generation == link.generation) {
            if kept.channel.status().connected() {
                return Ok(kept);
            }
            self.tell_replaced(&kept);
        }
        let reserved = Arc::new(self.reserve_new(Reserved::open).await?);
        *self.lock(&self.unconfirmed) = Some(reserved.clone());
        Ok(reserved)
    }

    /// A new channel, as soon as the connection gives one.
    async fn reserve_new(&self, open: impl AsyncFn(Arc<Link>) -> Result<Reserved>) -> Result<Reserved> {
        loop {
            match open(self.ready_link().await?).await {
                Err(error) if error.is_transient(true) => sleep(RESERVE_PAUSE).await,
                reserved => return reserved,
            }
        }
    }

    /// The present generation, once the broker takes messages and has what it needs for them.
    async fn ready_link(&self) -> Result<Arc<Link>> {
        loop {
            let link = self.connection.link().await?;
            link.unblocked().await;
            match self.declare_once(&link).await {
                Err(error) if error.is_transient(true) => sleep(RESERVE_PAUSE).await,
                declared => return declared.map(|()| link),
            }
        }
    }

    async fn declare_once(&self, link: &Arc<Link>) -> Result<()> {
        if self.topology.is_empty() {
            return Ok(());
        }
        let mut declared = self.declared.lock().await;
        if *declared != link.generation {
            let setup = Reserved::open(link.clone()).await?;
            link.unless_lost(self.topology.declare_on(&setup.channel)).await?;
            setup.close().await;
        }
        *declared = link.generation;
        Ok(())
    }

    fn take_idle(&self, link: &Link) -> Option<Arc<Reserved>> {
        let mut idle = self.lock(&self.idle);
        idle.retain(|reserved| {
            let present = reserved.link.generation == link.generation;
            let usable = reserved.channel.status().connected();
            if present && !usable {
                self.tell_replaced(reserved);
            }
            present && usable
        });
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

    async fn in_time<T>(&self, end: Instant, step: impl Future<Output = Result<T>>) -> Result<T> {
        timeout_at(end, step).await.unwrap_or_else(|_| Err(self.late("reserve a channel")))
    }

    /// Why `step` took too long, as far as the connection's state tells.
    fn late(&self, step: &'static str) -> Error {
        match &*self.connection.state().borrow() {
            State::Blocked { reason, .. } => Error::Blocked { reason: reason.clone(), after: self.deadline },
            State::Reconnecting { cause, .. } => match &**cause {
                lost @ Error::Lost(_) => lost.clone(),
                _ => Error::Lost(cause.clone()),
            },
            _ => Error::Timeout { step, after: self.deadline },
        }
    }

    fn lock<'a, T>(&self, list: &'a Mutex<T>) -> MutexGuard<'a, T> {
        // A panic elsewhere cannot leave a list of channels half changed.
        list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether sending again may end better.
fn may_pass(error: &Error) -> bool {
    matches!(error, Error::Blocked { .. }) || error.is_transient(true)
}

impl Reserved {
    async fn open(link: Arc<Link>) -> Result<Self> {
        let channel = link.channel().await?;
        Ok(Self { link, channel })
    }

    async fn confirming(link: Arc<Link>) -> Result<Self> {
        let reserved = Self::open(link).await?;
        let confirms = reserved.channel.confirm_select(ConfirmSelectOptions::default());
        reserved.link.unless_lost(confirms.deadline("switch on publisher confirms")).await?;
        Ok(reserved)
    }

    /// Closes the channel, whose last answer has been seen.
    async fn close(&self) {
        let _ = timeout(GRACE, self.channel.close(200, "OK".into())).await;
    }
}

/// A channel whose messages have no known outcome. Dropping it leaves the channel open for a moment more.
///
/// The broker may be about to refuse a message. lapin takes a channel that is closed before it has seen
/// that refusal for a broken connection.
struct InDoubt(Option<Arc<Reserved>>);

impl InDoubt {
    fn settled(mut self) {
        self.0 = None;
    }
}

impl Drop for InDoubt {
    fn drop(&mut self) {
        if let (Some(reserved), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(async move {
                tokio::select! {
                    () = sleep(REFUSAL_TIME) => {}
                    _ = reserved.link.lost() => {}
                }
            });
        }
    }
}
