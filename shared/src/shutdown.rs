//! Stopping on request: one token that says when, and a list of what must end before the process does.

use std::time::Duration;

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long work in hand may take to finish after a request to stop.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(5);

/// Tells a program's parts when to stop, and waits for its connections to be closed. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    requested: CancellationToken,
    closing: CancellationToken,
    connections: TaskTracker,
}

impl Shutdown {
    /// Nobody asked to stop yet. Programs get theirs from [`run`](crate::run); tests make their own.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks everything to finish what it has in hand and stop.
    pub fn request(&self) {
        self.requested.cancel();
    }

    /// Whether a stop was asked for.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.requested.is_cancelled()
    }

    /// Resolves once a stop is asked for.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// Closes all connections that were opened with this and waits for them, up to [`SHUTDOWN_DEADLINE`].
    pub async fn close_connections(&self) {
        self.closing.cancel();
        self.connections.close();
        let _ = timeout(SHUTDOWN_DEADLINE, self.connections.wait()).await;
    }

    /// A token for one connection: cancelled by its last handle, or with all others.
    pub(crate) fn closing(&self) -> CancellationToken {
        self.closing.child_token()
    }

    pub(crate) fn connections(&self) -> &TaskTracker {
        &self.connections
    }
}
