//! A keeper that is watched: which messages it prints, when, and when it consumes again.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use harness::{Program, Running, Stream};

/// What a keeper has printed so far. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Catch(Arc<Shared>);

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Default)]
struct Seen {
    /// How often each number came.
    numbers: BTreeMap<u64, u32>,
    /// Lines of messages.
    lines: u64,
    /// What it said when it lost its connection.
    losses: Vec<String>,
    /// When it was connected, each time.
    connects: Vec<Instant>,
    /// When a worker started to consume, each time.
    starts: Vec<Instant>,
    /// The first line of a message after each of them.
    first_lines: Vec<Instant>,
}

/// A program that runs, and what it prints about messages.
pub(crate) struct Watched {
    pub(crate) program: Running,
    pub(crate) catch: Catch,
}

impl Watched {
    /// Starts a keeper and waits until it consumes.
    pub(crate) fn start(keeper: Program, limit: Duration) -> Result<Self> {
        let watched = Self::launch(keeper, limit);
        watched.catch.wait("the keeper to consume", limit, |seen| (!seen.starts.is_empty()).then_some(()))?;
        Ok(watched)
    }

    /// Starts a keeper that may have nobody to talk to yet.
    pub(crate) fn launch(keeper: Program, limit: Duration) -> Self {
        let catch = Catch::default();
        let noted = catch.clone();
        let program = keeper.on_line(move |stream, line| noted.note(stream, line)).deadline(limit).start();
        Self { program, catch }
    }
}

impl Catch {
    fn note(&self, stream: Stream, line: &str) {
        let now = Instant::now();
        let mut seen = self.lock();
        match stream {
            Stream::Stderr if line.contains(": connection lost: ") => seen.losses.push(line.to_owned()),
            Stream::Stderr if line.contains(": connected (generation ") => seen.connects.push(now),
            Stream::Stderr if line.ends_with(": consuming") => seen.starts.push(now),
            Stream::Stdout => {
                let Some(number) = line.rsplit_once(" consumed: morientes ").map(|(_, number)| number) else {
                    return;
                };
                // A long body is filled up with dots.
                let Ok(number) = number.trim_end_matches('.').parse() else { return };
                *seen.numbers.entry(number).or_default() += 1;
                seen.lines += 1;
                if seen.first_lines.len() < seen.starts.len() {
                    let starts = seen.starts.len();
                    seen.first_lines.resize(starts, now);
                }
            }
            Stream::Stderr => return,
        }
        self.0.changed.notify_all();
    }

    /// How many different messages came.
    pub(crate) fn distinct(&self) -> u64 {
        self.lock().numbers.len() as u64
    }

    /// How many messages came.
    pub(crate) fn lines(&self) -> u64 {
        self.lock().lines
    }

    /// How often a worker started to consume.
    pub(crate) fn starts(&self) -> usize {
        self.lock().starts.len()
    }

    /// Waits for this many different messages.
    pub(crate) fn wait_for(&self, distinct: u64, limit: Duration) -> Result<()> {
        let what = format!("{distinct} different messages");
        self.wait(&what, limit, |seen| (seen.numbers.len() as u64 >= distinct).then_some(()))
    }

    /// Waits for more messages than came until now.
    pub(crate) fn wait_for_more(&self, more: u64, limit: Duration) -> Result<()> {
        self.wait_for_lines(self.lines() + more, limit)
    }

    /// Waits for this many messages, of one striker or of several.
    pub(crate) fn wait_for_lines(&self, lines: u64, limit: Duration) -> Result<()> {
        self.wait(&format!("{lines} messages"), limit, |seen| (seen.lines >= lines).then_some(()))
    }

    /// What it said when it lost its connection, each time.
    pub(crate) fn losses(&self) -> Vec<String> {
        self.lock().losses.clone()
    }

    /// When it was connected last, if ever.
    pub(crate) fn last_connect(&self) -> Option<Instant> {
        self.lock().connects.last().copied()
    }

    /// Waits for the first message that came after the start of a worker that follows on the first `starts`;
    /// when it came.
    pub(crate) fn wait_for_return(&self, starts: usize, limit: Duration) -> Result<Instant> {
        self.wait("the first message after the fault", limit, |seen| seen.first_lines.get(starts).copied())
    }

    /// Waits for the start of a worker that follows on the first `starts`; when it was.
    pub(crate) fn wait_for_start(&self, starts: usize, limit: Duration) -> Result<Instant> {
        self.wait("the keeper to consume again", limit, |seen| seen.starts.get(starts).copied())
    }

    fn wait<T>(&self, what: &str, limit: Duration, find: impl Fn(&Seen) -> Option<T>) -> Result<T> {
        let end = Instant::now() + limit;
        let mut seen = self.lock();
        loop {
            if let Some(found) = find(&seen) {
                return Ok(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("waited {limit:?} for {what}; {} came, {} different", seen.lines, seen.numbers.len());
            }
            seen = self.0.changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
