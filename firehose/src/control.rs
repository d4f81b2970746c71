//! Tracing turned on for as long as somebody looks, and put back afterwards.

use std::sync::Arc;
use std::time::Duration;

use shared::{Error, Result, Shutdown};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use crate::{Management, ManagementError};

/// How long the management API may take to come back after the broker has.
const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(250);

/// Turns tracing on, and off again if it was off before.
///
/// Whoever drops it without [`Control::restore`] leaves tracing on, as a killed process does.
pub struct Control {
    management: Arc<Management>,
    /// It has answered once, so that silence is a passing fault.
    answered: bool,
    /// Tracing was off before.
    turned_on: bool,
}

impl Control {
    /// Nothing is changed yet.
    #[must_use]
    pub fn new(management: Management) -> Self {
        Self { management: Arc::new(management), answered: false, turned_on: false }
    }

    /// Turns tracing on. To be called again after each loss of the connection: a broker that was restarted
    /// does not trace any more.
    ///
    /// # Errors
    /// [`Error::Own`] with a [`ManagementError`]; [`Error::Stopped`] on shutdown.
    pub async fn turn_on(&mut self, shutdown: &Shutdown) -> Result<()> {
        let give_up = Instant::now() + PATIENCE;
        loop {
            match self.try_turn_on().await {
                Ok(()) => return Ok(()),
                Err(error) if self.answered && error.may_pass() && Instant::now() < give_up => {
                    tracing::debug!("{error}");
                }
                Err(error) => return Err(Error::own(error)),
            }
            tokio::select! {
                () = sleep(PAUSE) => {}
                () = shutdown.requested() => return Err(Error::Stopped),
            }
        }
    }

    async fn try_turn_on(&mut self) -> Result<(), ManagementError> {
        let on = self.ask(Management::tracing).await?;
        self.answered = true;
        if !on {
            // Noted first: if the answer gets lost, tracing may be on all the same.
            self.turned_on = true;
            self.ask(|management| management.set_tracing(true)).await?;
        }
        Ok(())
    }

    /// Turns tracing off if it was off before [`Control::turn_on`]; whether that was so.
    ///
    /// # Errors
    /// [`ManagementError`], with tracing left on.
    pub async fn restore(&mut self) -> Result<bool, ManagementError> {
        if self.turned_on {
            self.ask(|management| management.set_tracing(false)).await?;
        }
        Ok(std::mem::take(&mut self.turned_on))
    }

    /// Makes a blocking request beside the other tasks.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Management) -> Result<T, ManagementError> + Send + 'static,
    ) -> Result<T, ManagementError> {
        let management = self.management.clone();
        let answer = spawn_blocking(move || question(&management)).await;
        answer.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}
