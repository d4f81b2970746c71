//! How a program is to be started: path, arguments, environment, deadline.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::failure::or_panic;
use crate::transcript::{Observer, Transcript};
use crate::{End, Failure, Running, Stream};

/// Variables that change what the workspace's programs do and print; a test must not inherit them.
const NOT_INHERITED: [&str; 3] = ["AMQP_URL", "AMQP_PREFIX", "RUST_LOG"];

/// A program that is not started yet.
///
/// By default it has an empty standard input, because the workspace's programs must live with one, and
/// does not inherit `AMQP_URL`, `AMQP_PREFIX` and `RUST_LOG`.
///
/// ```
/// let end = harness::Program::new("echo").args(["Hello", "World!"]).run();
/// assert_eq!(end.stdout, ["Hello World!"]);
/// ```
pub struct Program {
    command: Command,
    deadline: Option<Duration>,
    observer: Option<Observer>,
}

impl Program {
    /// The program at this path, or of this name in `PATH`.
    pub fn new(path: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new(path);
        command.stdin(Stdio::null());
        for name in NOT_INHERITED {
            command.env_remove(name);
        }
        Self { command, deadline: None, observer: None }
    }

    /// Adds one argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets one variable of the environment.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Keeps one variable of the environment from the program.
    pub fn env_remove(mut self, name: impl AsRef<OsStr>) -> Self {
        self.command.env_remove(name);
        self
    }

    /// Gives the program a standard input other than the empty one.
    pub fn stdin(mut self, stdin: impl Into<Stdio>) -> Self {
        self.command.stdin(stdin);
        self
    }

    /// How long to wait for a line (30 s unless told) and in [`run`](Self::run) for the end (60 s unless told).
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Is told of each line as it comes, before anything that waits for the line goes on.
    pub fn on_line(mut self, observer: impl Fn(Stream, &str) + Send + Sync + 'static) -> Self {
        self.observer = Some(Box::new(observer));
        self
    }

    /// Starts the program, as the leader of a process group of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    pub fn start(self) -> Running {
        or_panic(self.try_start())
    }

    /// Like [`start`](Self::start), without the panic.
    pub fn try_start(mut self) -> Result<Running, Failure> {
        let name = command_line(&self.command);
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let child =
            self.command.spawn().map_err(|e| Failure::new(format!("{name}: cannot be started: {e}")))?;
        let deadline = self.deadline.unwrap_or(Duration::from_secs(30));
        Running::watch(child, Transcript::new(name, self.observer), deadline)
    }

    /// Starts the program and waits for its end.
    ///
    /// # Panics
    /// When it cannot be started or does not end in time (60 s, or the [`deadline`](Self::deadline)).
    #[track_caller]
    pub fn run(self) -> End {
        or_panic(self.try_run())
    }

    /// Like [`run`](Self::run), without the panic.
    pub fn try_run(self) -> Result<End, Failure> {
        let deadline = self.deadline.unwrap_or(Duration::from_secs(60));
        self.try_start()?.try_wait(deadline)
    }
}

/// The program's name and its arguments, short enough to begin a message with.
fn command_line(command: &Command) -> String {
    let path = Path::new(command.get_program());
    let mut line = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        // Writing to a String cannot fail.
        let _ = if arg.is_empty() || arg.contains(char::is_whitespace) {
            write!(line, " {arg:?}")
        } else {
            write!(line, " {arg}")
        };
    }
    line
}
