//! What every `main` is wrapped in: logging, signals, runtime, and the exit code.

use std::io::{self, Write};
use std::process::{ExitCode, exit};

use crate::{Error, Shutdown, log, runtime, signals};

/// Runs a program: logs to standard error, stops it on Ctrl-C or SIGTERM, closes its connections and turns
/// its result into an exit code.
///
/// Exit codes: 0 done or stopped on request, 1 failed, 2 wrong usage, 130 after a second signal. On the
/// first signal the [`Shutdown`] is requested and the program has
/// [`SHUTDOWN_DEADLINE`](crate::SHUTDOWN_DEADLINE) to finish. An error is one line on standard error: what
/// went wrong, then what to do about it.
///
/// The runtime has one thread: these programs wait for the network, and start twice as fast without the
/// others.
pub fn run(program: impl AsyncFnOnce(Shutdown) -> anyhow::Result<()>) -> ExitCode {
    log::init();
    let shutdown = Shutdown::new();
    let runtime = signals::request_on_signals(shutdown.clone()).and_then(|()| runtime());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let result = runtime.block_on(async {
        let result = program(shutdown.clone()).await;
        shutdown.close_connections().await;
        result
    });
    // Not waited for: a name look-up may still block one of its threads.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if shutdown.is_requested() => {
            if !matches!(error.downcast_ref(), Some(Error::Stopped)) {
                tracing::warn!("stopped before it was done: {error:#}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let ours = error.chain().find_map(|error| error.downcast_ref::<Error>());
    let hint = ours.and_then(Error::hint).map(|hint| format!("; {hint}")).unwrap_or_default();
    // Nothing can be done if standard error is closed.
    let _ = writeln!(io::stderr(), "error: {error:#}{hint}");
    if matches!(ours, Some(Error::Usage(_))) { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Prints a lesson line to standard output, like `println!`.
///
/// Where `println!` panics because nobody reads any more (`receiver | head -1`), this ends the program.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::print_line(format_args!($($text)*)) };
}

/// Prints a lesson line for a program that has something to put right before it ends.
///
/// # Errors
/// Whatever the operating system says; [`io::ErrorKind::BrokenPipe`] if nobody reads any more.
pub fn try_print_line(line: std::fmt::Arguments<'_>) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// What [`say!`](crate::say) expands to.
#[doc(hidden)]
pub fn print_line(line: std::fmt::Arguments<'_>) {
    if let Err(error) = try_print_line(line) {
        if error.kind() == io::ErrorKind::BrokenPipe {
            exit(0);
        }
        let _ = writeln!(io::stderr(), "error: cannot write to standard output: {error}");
        exit(1);
    }
}
