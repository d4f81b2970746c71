//! Waiting for a condition, never without a deadline.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Short enough not to be felt, long enough to leave the processor to the node.
const INTERVAL: Duration = Duration::from_millis(20);

/// Asks `condition` until it has a value, for `limit` at most. `what` completes "waited 5s for …" in the
/// error.
pub(crate) fn until<T>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            bail!("waited {limit:?} for {what} in vain");
        }
        thread::sleep(INTERVAL);
    }
}
