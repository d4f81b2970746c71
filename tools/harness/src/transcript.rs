//! Everything that a program printed and how it ended, shared between the threads that watch it.

use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::process::ExitStatus;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Where a program printed a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl fmt::Display for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        })
    }
}

pub(crate) type Observer = Box<dyn Fn(Stream, &str) + Send + Sync>;

pub(crate) struct Transcript {
    name: String,
    started: Instant,
    observer: Option<Observer>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
    /// The exit status and the time from start to end.
    pub(crate) status: Option<(ExitStatus, Duration)>,
}

#[derive(Default)]
pub(crate) struct Lines {
    pub(crate) lines: Vec<String>,
    /// How many lines a test has taken.
    pub(crate) taken: usize,
    /// Nothing more can come: the program, and whatever it started, closed the stream.
    pub(crate) ended: bool,
}

impl State {
    pub(crate) fn lines(&mut self, stream: Stream) -> &mut Lines {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    pub(crate) fn both_ended(&self) -> bool {
        self.stdout.ended && self.stderr.ended
    }
}

impl Transcript {
    pub(crate) fn new(name: String, observer: Option<Observer>) -> Self {
        Self { name, started: Instant::now(), observer, state: Mutex::default(), changed: Condvar::new() }
    }

    /// A panic in an observer must not hide what the program printed, so a poisoned lock is still a lock.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until `find` finds something; `None` when the deadline passed first.
    pub(crate) fn wait<T>(
        &self,
        deadline: Instant,
        mut find: impl FnMut(&mut State) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(found) = find(&mut state) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Reads one stream to its end, line by line; whatever is not UTF-8 is replaced.
    pub(crate) fn read(&self, stream: Stream, source: impl Read) {
        let mut source = BufReader::new(source);
        let mut bytes = Vec::new();
        // A failed read of a pipe is its end as well: there is nobody to tell and nothing to repeat.
        while matches!(source.read_until(b'\n', &mut bytes), Ok(1..)) {
            let line = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(&bytes)).into_owned();
            bytes.clear();
            if let Some(observer) = &self.observer {
                observer(stream, &line);
            }
            self.change(|state| state.lines(stream).lines.push(line));
        }
        self.change(|state| state.lines(stream).ended = true);
    }

    pub(crate) fn exited(&self, status: ExitStatus) {
        let elapsed = self.started.elapsed();
        self.change(|state| state.status = Some((status, elapsed)));
    }

    /// `problem` and all that is known, for a person who has only this text.
    pub(crate) fn report(&self, problem: &str) -> String {
        let state = self.lock();
        let so_far = match state.status {
            Some((status, elapsed)) => format!("ended after {elapsed:.1?}, {status}"),
            None => format!("runs since {:.1?}", self.started.elapsed()),
        };
        let stdout = listing(Stream::Stdout, &state.stdout);
        let stderr = listing(Stream::Stderr, &state.stderr);
        format!("{}: {problem}\nThe program {so_far}.\n{stdout}{stderr}", self.name)
    }
}

/// All lines of a stream, with a mark where the test has read to.
fn listing(stream: Stream, lines: &Lines) -> String {
    let mut text = format!("--- {stream}, {} lines, {} taken ---\n", lines.lines.len(), lines.taken);
    for (at, line) in lines.lines.iter().enumerate() {
        text += if at < lines.taken { "  " } else { "> " };
        text += line;
        text += "\n";
    }
    text
}
