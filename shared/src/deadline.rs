//! No wait on the broker without an end: lapin has no time limits of its own.

use std::future::{Future, IntoFuture};
use std::time::Duration;

use tokio::time::timeout;

use crate::{Error, Result};

/// How long one answer of the broker may take.
pub const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Gives lapin's calls a deadline, and their errors the name of the step.
///
/// ```no_run
/// # use shared::Deadline;
/// # async fn example(channel: lapin::Channel) -> shared::Result<()> {
/// channel.confirm_select(Default::default()).deadline("switch on publisher confirms").await?;
/// # Ok(()) }
/// ```
pub trait Deadline<T>: Sized {
    /// Waits for at most [`CALL_DEADLINE`]. `step` completes the sentence "Failed to …".
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Timeout`].
    fn deadline(self, step: &'static str) -> impl Future<Output = Result<T>> + Send {
        self.deadline_in(CALL_DEADLINE, step)
    }

    /// The same with another limit.
    ///
    /// # Errors
    /// [`Error::Refused`] or [`Error::Timeout`].
    fn deadline_in(self, limit: Duration, step: &'static str) -> impl Future<Output = Result<T>> + Send;
}

impl<F, T> Deadline<T> for F
where
    F: IntoFuture<Output = lapin::Result<T>>,
    F::IntoFuture: Send,
{
    fn deadline_in(self, limit: Duration, step: &'static str) -> impl Future<Output = Result<T>> + Send {
        let call = timeout(limit, self.into_future());
        async move {
            match call.await {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(cause)) => Err(Error::Refused { step, cause }),
                Err(_) => Err(Error::Timeout { step, after: limit }),
            }
        }
    }
}
