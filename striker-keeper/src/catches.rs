//! What the keeper does with each message.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lapin::message::Delivery;
use lapin::types::ShortString;
use shared::{Shutdown, Verdict, say};
use tokio::time::sleep;

use crate::QUEUE;
use crate::numbers::Seen;
use crate::report::ReportArgs;

/// Handles messages and remembers which have come.
pub struct Catcher {
    work: Duration,
    count: Option<u64>,
    report: ReportArgs,
    shutdown: Shutdown,
    seen: Mutex<Seen>,
}

impl Catcher {
    /// Takes `work` for each message, and asks the program to stop after `count` of them.
    #[must_use]
    pub fn new(work: Duration, count: Option<u64>, report: ReportArgs, shutdown: &Shutdown) -> Self {
        Self { work, count, report, shutdown: shutdown.clone(), seen: Mutex::default() }
    }

    /// What has come so far.
    pub fn seen(&self) -> MutexGuard<'_, Seen> {
        // Counts may be one short after a panic, but never torn.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does the work of one message and prints its line.
    pub async fn catch(self: Arc<Self>, worker: u16, delivery: Delivery) -> Verdict {
        if !self.work.is_zero() {
            sleep(self.work).await;
        }
        if self.report.each_message() {
            say!("[{worker}] {QUEUE} consumed: {}", String::from_utf8_lossy(&delivery.data));
        }
        let mut seen = self.seen();
        seen.note(delivery.properties.message_id().as_ref().map(ShortString::as_str));
        if self.count.is_some_and(|count| seen.distinct >= count) {
            self.shutdown.request();
        }
        Verdict::Ack
    }
}
