//! The states of a connection, in order, and whether each may follow on the one before.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use shared::{Connection, State};
use tokio::runtime::Handle;

/// What a connection has gone through. Some states may be too short to be seen.
#[derive(Clone)]
pub(crate) struct History(Arc<Mutex<Vec<State>>>);

impl History {
    /// Watches from now on, until the connection is closed.
    pub(crate) fn watch(runtime: &Handle, connection: &Connection) -> Self {
        let mut seen = connection.state();
        let history = Self(Arc::new(Mutex::new(vec![seen.borrow_and_update().clone()])));
        let noted = history.clone();
        runtime.spawn(async move {
            while seen.changed().await.is_ok() {
                let state = seen.borrow_and_update().clone();
                noted.0.lock().unwrap_or_else(PoisonError::into_inner).push(state);
            }
        });
        history
    }

    /// All states so far.
    pub(crate) fn states(&self) -> Vec<State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether each change was a legal one.
    pub(crate) fn check(&self) -> Result<()> {
        let states = self.states();
        for pair in states.windows(2) {
            ensure!(may_follow(&pair[0], &pair[1]), "{} → {} is not legal: {states:?}", pair[0], pair[1]);
        }
        Ok(())
    }
}

/// Generations only count up, and go on as long as they are not lost; what is closed stays closed.
fn may_follow(before: &State, after: &State) -> bool {
    match (before, after) {
        (State::Closed { .. }, _) | (_, State::Connecting) => false,
        (State::Connecting, State::Up { generation }) => *generation == 1,
        (State::Up { generation: old }, State::Blocked { generation: new, .. })
        | (State::Blocked { generation: old, .. }, State::Up { generation: new }) => new == old,
        // With the loss in between not seen.
        (State::Up { generation: old }, State::Up { generation: new })
        | (State::Blocked { generation: old, .. }, State::Blocked { generation: new, .. }) => new > old,
        _ => true,
    }
}
