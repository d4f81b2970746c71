//! Publishing that tells what became of each message.

use std::borrow::Cow;
use std::slice;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use crate::channels::Channels;
use crate::link::Link;
use crate::reserved::{InDoubt, Reserved};
use crate::retry::Backoff;
use crate::window::{Window, windows, write_unconfirmed};
use crate::{Connection, Deadline, Error, Message, Outcome, Result, RetryPolicy, Topology};

/// How long confirms are waited for once the program is to stop: time is left for its own last words.
const LAST_CONFIRMS: Duration = Duration::from_secs(2);

/// How many messages of a batch are in flight at once unless it is said otherwise.
const WINDOW: usize = 1000;

/// Publishes on reserved channels of a [`Connection`], whichever generation it is in.
///
/// Mandatory messages and batches have a channel to themselves as long as they are in flight, which makes
/// the outcome of each exact: lapin hands a returned message to whichever confirm comes next. Other single
/// messages share a channel. Keep one publisher and share it.
pub struct Publisher {
    channels: Channels,
    /// For those that have a channel to themselves.
    places: Semaphore,
    window: usize,
    resends: u32,
    resent: AtomicU64,
}

impl Publisher {
    /// At most `channels` mandatory messages or batches are in flight at once, at least 1, and about a
    /// thousand other messages; further ones wait their turn.
    #[must_use]
    pub fn new(connection: &Connection, channels: usize) -> Self {
        Self {
            channels: Channels::new(connection),
            places: Semaphore::new(channels.max(1)),
            window: WINDOW,
            resends: 0,
            resent: AtomicU64::new(0),
        }
    }

    /// The same publisher with another limit for each message, or window of a batch, than
    /// [`CALL_DEADLINE`](crate::CALL_DEADLINE).
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.channels.deadline = deadline;
        self
    }

    /// The same publisher with another number of messages in flight in a batch than 1000. At least 1.
    #[must_use]
    pub fn with_window(self, messages: usize) -> Self {
        Self { window: messages.max(1), ..self }
    }

    /// The same publisher, which declares `topology` before it publishes in each generation, and again once
    /// an exchange is missing.
    #[must_use]
    pub fn with_topology(mut self, topology: Topology) -> Self {
        self.channels.topology = topology;
        self
    }

    /// The same publisher, which sends a message again, up to `times` times, when it was not sent or its
    /// outcome is unknown and another try may end better, or when it was nacked: a full queue may have room
    /// later, and a quorum queue without a leader soon has another one.
    ///
    /// That is delivery *at least once*: what was unknown, or nacked by one of several queues, may arrive twice,
    /// with the same message id (one is made up where there is none), and later than what was published after
    /// it.
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
        let outcomes = match message.mandatory {
            true => self.publish_window(&messages).await,
            false => self.publish_together(&messages).await,
        };
        only(self.resend_if_allowed(&messages, outcomes).await)
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
            let first = self.publish_window(window).await;
            outcomes.extend(self.resend_if_allowed(window, first).await);
        }
        outcomes
    }

    /// Publishes a message on a channel that is opened for it and closed after it: what publishing with
    /// confirms costs without reserved channels.
    pub async fn publish_on_new_channel(&self, message: &Message<'_>) -> Outcome {
        let end = Instant::now() + self.channels.deadline;
        let Ok(Ok(_place)) = timeout_at(end, self.places.acquire()).await else {
            return Outcome::NotSent(self.channels.late("reserve a channel"));
        };
        let reserved = match self.channels.open(end).await {
            Ok(reserved) => reserved,
            Err(error) => return Outcome::NotSent(error),
        };
        let outcome = only(self.settle(&reserved, Window::new(slice::from_ref(message)), end).await);
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
            let end = Instant::now() + self.channels.deadline;
            let reserved = self.channels.unconfirmed(end).await?;
            let written = tokio::select! {
                biased;
                written = timeout_at(end, write_unconfirmed(&reserved.channel, window)) => {
                    written.unwrap_or_else(|_| Err(self.channels.late("write a message")))
                }
                cause = reserved.link.lost() => Err(Error::Lost(cause)),
            };
            if let Err(error) = written {
                reserved.spoil();
                reserved.link.suspect();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Waits until the broker has read all that was published without confirms so far, up to the deadline. A
    /// program that ends without that may take some of it with it, if the broker is slow.
    ///
    /// It says nothing about where the messages went: a quorum queue may lose those that came shortly before their
    /// channel was closed, and this closes it.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::Stopped`] when the program is to stop and the broker does not answer, or why
    /// the connection was lost: any part may be lost.
    pub async fn flush(&self) -> Result<()> {
        let Some(reserved) = self.channels.take_unconfirmed().await else { return Ok(()) };
        if reserved.link.is_lost() {
            return Err(Error::Lost(reserved.link.lost().await));
        }
        // A channel is read in order: what it is closed behind has been read.
        let closed =
            reserved.channel.close(200, "OK".into()).deadline_in(self.channels.deadline, "end a channel");
        tokio::select! {
            biased;
            closed = reserved.link.unless_lost(closed) => closed,
            () = self.no_time_left(&reserved.link) => Err(Error::Stopped),
        }
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
        let end = Instant::now() + self.channels.deadline;
        let not_sent = |error: &Error| messages.iter().map(|_| Outcome::NotSent(error.clone())).collect();
        // The semaphore is never closed, so an error is a timeout.
        let Ok(Ok(_place)) = timeout_at(end, self.places.acquire()).await else {
            return not_sent(&self.channels.late("reserve a channel"));
        };
        let reserved = match self.channels.reserve(end).await {
            Ok(reserved) => reserved,
            Err(error) => return not_sent(&error),
        };
        let outcomes = self.settle(&reserved, Window::new(messages), end).await;
        if outcomes.iter().all(|outcome| outcome.unsettled().is_none()) {
            match is_refusing(&outcomes) {
                true => reserved.close().await,
                false => self.channels.give_back(reserved),
            }
        }
        outcomes
    }

    /// Publishes on a channel that others use as well.
    async fn publish_together(&self, messages: &[Message<'_>]) -> Vec<Outcome> {
        let end = Instant::now() + self.channels.deadline;
        match self.channels.shared(end).await {
            Ok(reserved) => {
                // As many as fit into a window; the semaphore is never closed.
                let Ok(Ok(_place)) = timeout_at(end, reserved.places.acquire()).await else {
                    return vec![Outcome::NotSent(self.channels.late("have its turn"))];
                };
                let outcomes = self.settle(&reserved, Window::among_others(messages), end).await;
                if is_refusing(&outcomes) {
                    self.channels.forget_shared(&reserved);
                }
                outcomes
            }
            Err(error) => vec![Outcome::NotSent(error)],
        }
    }

    /// Publishes a window on a reserved channel.
    async fn settle(
        &self,
        reserved: &Arc<Reserved>,
        mut window: Window<'_, '_>,
        end: Instant,
    ) -> Vec<Outcome> {
        let in_doubt = InDoubt::new(reserved);
        let late = tokio::select! {
            biased;
            done = timeout_at(end, window.publish(&reserved.channel)) => {
                done.err().map(|_| self.channels.late("get the broker's confirm"))
            }
            cause = reserved.link.lost() => Some(Error::Lost(cause)),
            () = self.no_time_left(&reserved.link) => Some(Error::Stopped),
        };
        let outcomes = window.outcomes(late);
        match outcomes.iter().find_map(Outcome::unsettled) {
            None => in_doubt.settled(),
            Some(error) => {
                // A channel in any other state is not used again.
                let first = reserved.spoil();
                reserved.link.suspect();
                if first && !reserved.link.is_lost() {
                    tracing::warn!(
                        "{}: {error}; the publishing channel is replaced",
                        self.channels.connection.name()
                    );
                }
                if error.code().is_some() {
                    // What was refused may be the exchange that was declared.
                    self.channels.declare_again();
                }
            }
        }
        outcomes
    }

    /// Resolves once the program is to stop and an answer would come too late, or not at all.
    async fn no_time_left(&self, link: &Link) {
        self.channels.connection.shutdown.requested().await;
        if link.blocked().is_none() {
            sleep(LAST_CONFIRMS).await;
        }
    }

    async fn resend_if_allowed(&self, messages: &[Message<'_>], outcomes: Vec<Outcome>) -> Vec<Outcome> {
        match self.resends {
            0 => outcomes,
            _ => Box::pin(self.resend(messages, outcomes)).await,
        }
    }

    /// Sends the unsettled ones of a window again, as often as is allowed and may help.
    async fn resend(&self, messages: &[Message<'_>], mut outcomes: Vec<Outcome>) -> Vec<Outcome> {
        let mut maybe_arrived = vec![false; outcomes.len()];
        let mut backoff = Backoff::new(RetryPolicy { attempts: 0, ..self.channels.connection.retry });
        if is_refusing(&outcomes) {
            // It may be minutes before the outcome is told.
            tracing::warn!("{}: {}; sending again", self.channels.connection.name(), Error::Nacked);
        }
        for _ in 0..self.resends {
            let mut again = Vec::new();
            let mut is_refused = false;
            for (place, outcome) in outcomes.iter().enumerate() {
                if matches!(outcome, Outcome::Nacked) {
                    maybe_arrived[place] = true;
                    again.push(place);
                } else if let Some(error) = outcome.unsettled().filter(|error| may_pass(error)) {
                    maybe_arrived[place] |= matches!(outcome, Outcome::Unknown(_));
                    is_refused |= error.is_refusal();
                    again.push(place);
                }
            }
            if again.is_empty() || self.channels.connection.shutdown.is_requested() {
                break;
            }
            tokio::select! {
                () = sleep(backoff.failed().unwrap_or_default()) => {}
                () = self.channels.connection.shutdown.requested() => break,
            }
            // Together, unless one of them may have been refused: alone, a refusal is surely its own.
            for places in again.chunks(if is_refused { 1 } else { again.len() }) {
                self.resent.fetch_add(places.len() as u64, Ordering::Relaxed);
                let window: Vec<_> = places.iter().map(|place| messages[*place].clone()).collect();
                for (place, outcome) in places.iter().zip(self.publish_window(&window).await) {
                    outcomes[*place] = outcome;
                }
            }
        }
        let honest = |(outcome, maybe_arrived)| match outcome {
            Outcome::NotSent(error) if maybe_arrived => Outcome::Unknown(error),
            outcome => outcome,
        };
        outcomes.into_iter().zip(maybe_arrived).map(honest).collect()
    }
}

/// Whether the channel had better be replaced: where a quorum queue's leader died, RabbitMQ 3 may nack on a channel
/// for ever that another channel would have confirmed.
fn is_refusing(outcomes: &[Outcome]) -> bool {
    outcomes.iter().any(|outcome| matches!(outcome, Outcome::Nacked))
}

/// The outcome of a window of one message.
fn only(mut outcomes: Vec<Outcome>) -> Outcome {
    outcomes.pop().unwrap_or(Outcome::NotSent(Error::Stopped))
}

/// Whether sending again may end better.
fn may_pass(error: &Error) -> bool {
    matches!(error, Error::Blocked { .. }) || error.is_transient(true)
}
