//! Sessions one after the other: what is tried again after a failure, when, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lapin::ErrorKind;
use tokio::time::{Instant, sleep, timeout};

use crate::io_thread::Movable;
use crate::link::{GRACE, Link};
use crate::retry::{Backoff, STABLE};
use crate::{Connection, Error, Result, Session};

/// The sessions of one purpose, from [`Connection::sessions`].
pub struct Sessions {
    connection: Connection,
    ready: Arc<AtomicBool>,
    backoff: Backoff,
    failing_since: Instant,
}

impl Sessions {
    pub(crate) fn new(connection: Connection) -> Self {
        let backoff = Backoff::new(connection.retry);
        Self { connection, ready: Arc::default(), backoff, failing_since: Instant::now() }
    }

    /// Waits for a connection and runs `body` once on a fresh channel of it. `None`: it is to be run again.
    ///
    /// # Errors
    /// As [`Connection::session`].
    pub async fn run<T, F>(&mut self, body: impl FnOnce(Session) -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<T>>,
    {
        self.run_with(|session, _| body(session)).await
    }

    /// The same, where `body` is a task on lapin's thread, if that runs tasks.
    pub(crate) async fn run_on_io_thread<T, F>(
        &mut self,
        body: impl FnOnce(Session) -> F,
    ) -> Result<Option<T>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        let attempt = self.run_with(|session, link| {
            let work = Movable::new(body(session));
            async move {
                match link.on_io_thread(&work).await {
                    Some(result) => result,
                    // It may know better than the connection why that ended.
                    None => work.here().await,
                }
            }
        });
        attempt.await
    }

    async fn run_with<T, F>(&mut self, body: impl FnOnce(Session, Arc<Link>) -> F) -> Result<Option<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let link = self.connection.link().await?;
        let started = Instant::now();
        let error = match self.attempt(&link, body).await {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error,
        };
        match (error, link.blocked()) {
            // The supervisor reports the loss and paces the next attempt.
            (Error::Lost(_), _) => Ok(None),
            (Error::Timeout { after, .. }, Some(reason)) => Err(Error::Blocked { reason, after }),
            (error, _) if error.is_transient(self.worked_before()) => {
                self.pause(error, started).await.map(|()| None)
            }
            (error, _) => Err(error),
        }
    }

    async fn attempt<T, F>(&self, link: &Arc<Link>, body: impl FnOnce(Session, Arc<Link>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let channel = match link.channel().await {
            Ok(channel) => channel,
            Err(error) => return Err(self.lost_or(error, link).await),
        };
        let session = Session::new(channel.clone(), self.connection.shutdown.clone(), self.ready.clone());
        let result = match link.unless_lost(body(session, link.clone())).await {
            // lapin's calls hang when its thread or the peer does; a new connection cures both.
            Err(error @ Error::Timeout { .. }) if link.blocked().is_none() => {
                Err(Error::Lost(link.lose(error).await))
            }
            Err(error) => Err(self.lost_or(error, link).await),
            Ok(value) => Ok(value),
        };
        if !link.is_lost() {
            // A channel that is still closing when its connection closes would spoil both.
            let _ = timeout(GRACE, channel.close(200, "OK".into())).await;
        }
        result
    }

    /// [`Error::Lost`] if the error comes from the loss of the connection, else the error itself.
    async fn lost_or(&self, error: Error, link: &Link) -> Error {
        link.suspect();
        // The session may know of the connection's end a moment before the supervisor does.
        let about_the_connection =
            matches!(&error, Error::Refused { cause, .. } if !cause.is_amqp_soft_error());
        if about_the_connection
            && error.is_transient(self.worked_before())
            && let Ok(cause) = timeout(GRACE, link.lost()).await
        {
            return Error::Lost(cause);
        }
        match error {
            Error::Refused { step, cause } if matches!(cause.kind(), ErrorKind::InvalidChannelState(..)) => {
                Error::Refused { step, cause: link.recent_refusal().unwrap_or(cause) }
            }
            error => error,
        }
    }

    /// Waits before another attempt on a connection that is still there.
    async fn pause(&mut self, error: Error, started: Instant) -> Result<()> {
        let lasted = self.worked_before() && started.elapsed() >= STABLE;
        if lasted || self.backoff.failures() == 0 {
            self.failing_since = Instant::now();
            tracing::warn!("{}: {}; starting again", self.connection.name(), error.explain());
        }
        let pause = if lasted { Some(self.backoff.lost()) } else { self.backoff.failed() };
        let Some(pause) = pause else {
            return Err(Error::Exhausted {
                target: self.connection.name().to_owned(),
                attempts: self.backoff.failures(),
                after: self.failing_since.elapsed(),
                cause: Box::new(error),
            });
        };
        tokio::select! {
            () = sleep(pause) => Ok(()),
            () = self.connection.shutdown.requested() => Err(Error::Stopped),
        }
    }

    fn worked_before(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }
}
