//! What the rows share: places to play, programs to watch, and the questions that are asked after a fault.

mod client;
mod history;
mod own_node;
mod row;
mod stage;
mod tally;
mod watch;

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

pub(crate) use client::Client;
pub(crate) use own_node::{OwnNode, Resource};
pub(crate) use row::{Row, row, scale};
pub(crate) use stage::{Stage, after};
pub(crate) use tally::Tally;
pub(crate) use watch::Watched;

/// No step of a row may take longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Asks again until `holds` is true.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let since = Instant::now();
    while !holds()? {
        ensure!(since.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}
