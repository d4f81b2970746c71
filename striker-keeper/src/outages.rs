//! How often a connection was lost, and for how long at most.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use shared::{Connection, State};

/// What became of a connection so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Outages {
    /// Connections after the first.
    pub reconnects: u64,
    /// The longest time without a connection, from its loss to the next one.
    pub longest: Duration,
}

/// Watches a connection from now on, on a task that ends with it.
pub fn watch(connection: &Connection) -> impl Fn() -> Outages + use<> {
    let outages = Arc::new(Mutex::new(Outages::default()));
    let (noted, mut state) = (outages.clone(), connection.state());
    tokio::spawn(async move {
        let mut since = None;
        loop {
            let (up, over) = match &*state.borrow_and_update() {
                State::Up { generation } | State::Blocked { generation, .. } => (Some(*generation), false),
                State::Closed { .. } => (None, true),
                _ => (None, false),
            };
            match up {
                Some(generation) => {
                    let mut outages = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    outages.reconnects = generation - 1;
                    let lasted = since.take().map_or(Duration::ZERO, |since: Instant| since.elapsed());
                    outages.longest = outages.longest.max(lasted);
                }
                None => {
                    since.get_or_insert_with(Instant::now);
                }
            }
            if over || state.changed().await.is_err() {
                break;
            }
        }
    });
    move || *outages.lock().unwrap_or_else(PoisonError::into_inner)
}
