//! A row of the matrix: what was provoked, what was seen, and the record of it.

use std::time::Duration;
use std::{env, fs};

use anyhow::{Context, Result};
use serde_json::json;

use super::Tally;

/// What a row found out.
#[derive(Default)]
pub(crate) struct Row {
    /// What was seen, for a person who reads the table.
    pub(crate) seen: String,
    /// From the moment at which recovery was possible to the first message received again.
    pub(crate) recoveries: Vec<Duration>,
    /// Confirmed messages that are neither consumed nor in the queue.
    pub(crate) lost: u64,
    /// Deliveries of messages that had come before.
    pub(crate) duplicated: u64,
}

impl Row {
    /// Adds what the two sides counted, where `left` messages are still in the queue.
    pub(crate) fn count(&mut self, confirmed: u64, keeper: &Tally, left: u64) {
        self.lost += confirmed.saturating_sub(keeper.get("distinct") + left);
        self.duplicated += keeper.get("duplicates");
    }
}

/// Plays a row, and writes its record where one is asked for.
pub(crate) fn row(number: u32, fault: &str, play: impl FnOnce(&mut Row) -> Result<()>) -> Result<()> {
    let mut row = Row::default();
    play(&mut row)?;
    assert_eq!(row.lost, 0, "confirmed messages were lost");
    assert!(!row.seen.is_empty(), "a row says what was seen");
    let milliseconds: Vec<_> =
        row.recoveries.iter().map(|recovery| recovery.as_secs_f64() * 1000.0).collect();
    let record = json!({
        "number": number,
        "fault": fault,
        "seen": row.seen,
        "recoveries_ms": milliseconds,
        "lost": row.lost,
        "duplicated": row.duplicated,
    });
    if let Some(folder) = env::var_os("FAULTS_REPORT") {
        let path = std::path::Path::new(&folder).join(format!("{number:02}.json"));
        fs::write(&path, format!("{record:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// The everyday number, or the long one where the long version was asked for.
pub(crate) fn scale<T>(everyday: T, long: T) -> T {
    match env::var("FAULTS_SCALE") {
        Ok(scale) if scale == "long" => long,
        Ok(scale) => panic!("FAULTS_SCALE is '{scale}': it must be long, or not be set"),
        Err(_) => everyday,
    }
}
