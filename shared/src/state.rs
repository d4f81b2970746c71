//! What a connection is doing right now, for whoever wants to watch.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::Error;
use crate::error::rounded;

/// The state of a [`Connection`](crate::Connection). `Display` gives a line for a person.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum State {
    /// The first connection is being made.
    Connecting,
    /// Connected and logged in. Each new connection counts the generation up, from 1.
    Up {
        /// How many connections there have been.
        generation: u64,
    },
    /// Connected, but the broker takes nothing from publishers: a memory or disk alarm.
    Blocked {
        /// How many connections there have been.
        generation: u64,
        /// The broker's word for it, such as `low on memory`.
        reason: String,
    },
    /// An attempt failed or the connection was lost; another follows.
    Reconnecting {
        /// Which attempt is next: one more than there were failures in a row. A connection that was lost within
        /// a second is a failure as well, except the first one of all.
        attempt: u32,
        /// After how many failures in a row it is given up; 0 for never, or for a limit in time.
        of: u32,
        /// Why the last attempt failed or the connection was lost.
        cause: Arc<Error>,
        /// When the next attempt starts.
        next: Duration,
    },
    /// Over: closed on purpose (no cause), or given up.
    Closed {
        /// Why it was given up.
        cause: Option<Arc<Error>>,
    },
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connecting => write!(f, "connecting"),
            Self::Up { generation } => write!(f, "connected (generation {generation})"),
            Self::Blocked { reason, .. } => write!(f, "the broker blocks publishing: {reason}"),
            Self::Reconnecting { attempt, of: 0, cause, next } => {
                write!(f, "{cause}; attempt {attempt} in {}", rounded(*next))
            }
            Self::Reconnecting { attempt, of, cause, next } => {
                write!(f, "{cause}; attempt {attempt}/{of} in {}", rounded(*next))
            }
            Self::Closed { cause: None } => write!(f, "closed"),
            Self::Closed { cause: Some(cause) } => write!(f, "closed: {cause}"),
        }
    }
}
