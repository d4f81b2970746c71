//! A program that was started: its lines, its signals, its end.

use std::os::unix::process::ExitStatusExt;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fmt, fs, io, thread};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::failure::or_panic;
use crate::transcript::{State, Transcript};
use crate::watchdog::Watchdog;
use crate::{Failure, Stream};

/// How long the last lines may take to arrive once the program is gone.
const LAST_LINES: Duration = Duration::from_secs(5);

/// A started program. Signals go to it and to everything it started (its process group), as Ctrl-C in a
/// terminal would; dropping it kills them all, and so does the end of the process that started it.
pub struct Running {
    pid: u32,
    deadline: Duration,
    transcript: Arc<Transcript>,
    _watchdog: Watchdog,
}

/// How a program ended and everything it printed.
#[derive(Clone, Debug)]
pub struct End {
    /// The exit code, unless a signal ended the program.
    pub code: Option<i32>,
    /// The signal that ended the program.
    pub signal: Option<i32>,
    /// All lines of standard output.
    pub stdout: Vec<String>,
    /// All lines of standard error.
    pub stderr: Vec<String>,
    /// From the start of the program to its end.
    pub elapsed: Duration,
    report: String,
}

/// How it ended and everything it printed, for a person.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.report)
    }
}

impl End {
    /// Checks the exit code.
    ///
    /// # Panics
    /// With all that the program printed, when the code is another one.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        or_panic(self.try_code(code))
    }

    /// Like [`expect_code`](Self::expect_code), without the panic.
    pub fn try_code(self, code: i32) -> Result<Self, Failure> {
        if self.code == Some(code) {
            return Ok(self);
        }
        Err(Failure::new(format!("expected exit code {code}: {}", self.report)))
    }
}

impl Running {
    pub(crate) fn watch(
        mut child: Child,
        transcript: Transcript,
        deadline: Duration,
    ) -> Result<Self, Failure> {
        let pid = child.id();
        let watchdog = match Watchdog::over(pid) {
            Ok(watchdog) => watchdog,
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Failure::new(format!("cannot watch over process {pid}: {e}")));
            }
        };
        let transcript = Arc::new(transcript);
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let running = Self { pid, deadline, transcript: Arc::clone(&transcript), _watchdog: watchdog };

        let shared = Arc::clone(&transcript);
        thread::spawn(move || stdout.map(|pipe| shared.read(Stream::Stdout, pipe)));
        let shared = Arc::clone(&transcript);
        thread::spawn(move || stderr.map(|pipe| shared.read(Stream::Stderr, pipe)));
        thread::spawn(move || child.wait().map(|status| transcript.exited(status)));
        Ok(running)
    }

    /// The process id, which is also the id of the process group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// All lines of standard output so far.
    pub fn stdout(&self) -> Vec<String> {
        self.transcript.lock().stdout.lines.clone()
    }

    /// All lines of standard error so far.
    pub fn stderr(&self) -> Vec<String> {
        self.transcript.lock().stderr.lines.clone()
    }

    /// How many threads the program has now. Linux only.
    ///
    /// # Panics
    /// When the program has ended, or there is no `/proc`.
    #[track_caller]
    pub fn threads(&self) -> usize {
        match fs::read_dir(format!("/proc/{}/task", self.pid)) {
            Ok(tasks) => tasks.count(),
            Err(e) => panic!("{}", self.transcript.report(&format!("its threads cannot be counted: {e}"))),
        }
    }

    /// Takes the next line of standard output, which must be exactly this one.
    ///
    /// # Panics
    /// When another line comes, or none in time.
    #[track_caller]
    pub fn expect_line(&mut self, line: &str) {
        or_panic(self.try_expect_line(line));
    }

    /// Like [`expect_line`](Self::expect_line), without the panic.
    pub fn try_expect_line(&self, line: &str) -> Result<(), Failure> {
        let expected = format!("the line {line:?}");
        let next = self.next_line(Stream::Stdout, &expected, Instant::now() + self.deadline)?;
        if next == line {
            return Ok(());
        }
        Err(self.failure(&format!("expected {expected} on stdout, got {next:?}")))
    }

    /// Takes lines of standard output up to and including the first that satisfies the predicate; returns that one.
    ///
    /// # Panics
    /// When no such line comes in time.
    #[track_caller]
    pub fn wait_for_line(&mut self, predicate: impl Fn(&str) -> bool) -> String {
        or_panic(self.try_wait_for_line(Stream::Stdout, predicate))
    }

    /// Like [`wait_for_line`](Self::wait_for_line), on standard error.
    ///
    /// # Panics
    /// When no such line comes in time.
    #[track_caller]
    pub fn wait_for_error_line(&mut self, predicate: impl Fn(&str) -> bool) -> String {
        or_panic(self.try_wait_for_line(Stream::Stderr, predicate))
    }

    /// Like [`wait_for_line`](Self::wait_for_line), on either stream and without the panic.
    pub fn try_wait_for_line(
        &self,
        stream: Stream,
        predicate: impl Fn(&str) -> bool,
    ) -> Result<String, Failure> {
        let deadline = Instant::now() + self.deadline;
        loop {
            let line = self.next_line(stream, "a line that satisfies the predicate", deadline)?;
            if predicate(&line) {
                return Ok(line);
            }
        }
    }

    fn next_line(&self, stream: Stream, expected: &str, deadline: Instant) -> Result<String, Failure> {
        let next = self.transcript.wait(deadline, |state| {
            let lines = state.lines(stream);
            if let Some(line) = lines.lines.get(lines.taken) {
                lines.taken += 1;
                return Some(Some(line.clone()));
            }
            lines.ended.then_some(None)
        });
        match next {
            Some(Some(line)) => Ok(line),
            Some(None) => {
                // A closed stream mostly means that the program is ending: how it ends, and what it says
                // on the other stream, explains the failure.
                self.transcript
                    .wait(Instant::now() + Duration::from_secs(1), |state| gone(state).then_some(()));
                Err(self.failure(&format!("{stream} ended while waiting for {expected}")))
            }
            None => Err(self.failure(&format!("waited {:?} on {stream} for {expected}", self.deadline))),
        }
    }

    /// Waits for the end of the program; may be called again afterwards.
    ///
    /// # Panics
    /// When the program still runs after this time.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> End {
        or_panic(self.try_wait(limit))
    }

    /// Like [`wait`](Self::wait), without the panic.
    pub fn try_wait(&self, limit: Duration) -> Result<End, Failure> {
        let Some((status, elapsed)) = self.transcript.wait(Instant::now() + limit, |state| state.status)
        else {
            return Err(self.failure(&format!("waited {limit:?} for its end")));
        };
        // A program that it left behind can hold the streams open for ever.
        self.transcript.wait(Instant::now() + LAST_LINES, |state| state.both_ended().then_some(()));
        Ok(End {
            code: status.code(),
            signal: status.signal(),
            stdout: self.stdout(),
            stderr: self.stderr(),
            elapsed,
            report: self.transcript.report(&status.to_string()),
        })
    }

    /// Sends SIGINT, as Ctrl-C does.
    #[track_caller]
    pub fn interrupt(&self) {
        or_panic(self.try_interrupt());
    }

    /// Like [`interrupt`](Self::interrupt), without the panic.
    pub fn try_interrupt(&self) -> Result<(), Failure> {
        self.signal(Signal::SIGINT)
    }

    /// Sends SIGTERM, as a service manager does.
    #[track_caller]
    pub fn terminate(&self) {
        or_panic(self.signal(Signal::SIGTERM));
    }

    /// Sends SIGKILL.
    #[track_caller]
    pub fn kill(&self) {
        or_panic(self.signal(Signal::SIGKILL));
    }

    /// Stops the program where it stands (SIGSTOP).
    #[track_caller]
    pub fn pause(&self) {
        or_panic(self.signal(Signal::SIGSTOP));
    }

    /// Lets a paused program go on (SIGCONT).
    #[track_caller]
    pub fn resume(&self) {
        or_panic(self.signal(Signal::SIGCONT));
    }

    /// Signals the group, and fails when the program has ended by itself: a test that stops a program
    /// means one that was still there.
    fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let sent = {
            let state = self.transcript.lock();
            if state.status.is_some() { Err(nix::Error::ESRCH) } else { killpg(self.group(), signal) }
        };
        sent.map_err(|e| self.failure(&format!("{signal} cannot be sent: {}", io::Error::from(e))))
    }

    fn group(&self) -> Pid {
        // The kernel hands out process ids as this very type.
        Pid::from_raw(self.pid.cast_signed())
    }

    fn failure(&self, problem: &str) -> Failure {
        Failure::new(self.transcript.report(problem))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        {
            // Once nobody holds the streams the group is empty, and its id may already be another's.
            let state = self.transcript.lock();
            if !gone(&state) {
                let _ = killpg(self.group(), Signal::SIGKILL);
            }
        }
        self.transcript.wait(Instant::now() + LAST_LINES, |state| gone(state).then_some(()));
    }
}

/// Nothing more will come of the program.
fn gone(state: &State) -> bool {
    state.status.is_some() && state.both_ended()
}
