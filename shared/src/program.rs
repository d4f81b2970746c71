//! What every `main` is wrapped in: logging, runtime, signals, and the exit code.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::sleep;

use crate::{Error, SHUTDOWN_DEADLINE, Shutdown, log};

/// A stop that takes longer than this is worth a word.
const NOTICEABLE: Duration = Duration::from_millis(500);

/// How a program ends.
enum End {
    Done,
    Failed(anyhow::Error),
    /// A second signal came, or the work in hand was not done in time.
    Abandoned(ExitCode),
}

/// Runs a program: logs to standard error, stops it on Ctrl-C or SIGTERM, closes its connections and turns
/// its result into an exit code.
///
/// Exit codes: 0 done or stopped on request, 1 failed, 2 wrong usage, 130 after a second signal. On the
/// first signal the [`Shutdown`] is requested and the program has [`SHUTDOWN_DEADLINE`] to finish. An error
/// is one line on standard error: what went wrong, then what to do about it.
///
/// The runtime has one thread: these programs wait for the network, and start twice as fast without the
/// others.
pub fn run(program: impl AsyncFnOnce(Shutdown) -> anyhow::Result<()>) -> ExitCode {
    log::init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let end = runtime.block_on(until_done_or_stopped(program));
    // Not waited for: a name look-up may still block one of its threads.
    runtime.shutdown_background();
    match end {
        End::Done => ExitCode::SUCCESS,
        End::Failed(error) => fail(&error),
        End::Abandoned(code) => code,
    }
}

async fn until_done_or_stopped(program: impl AsyncFnOnce(Shutdown) -> anyhow::Result<()>) -> End {
    let shutdown = Shutdown::new();
    let work = async {
        let result = program(shutdown.clone()).await;
        shutdown.close_connections().await;
        result
    };
    let result = tokio::select! {
        result = work => result,
        code = enforce(&shutdown) => return End::Abandoned(code),
    };
    match result {
        Ok(()) => End::Done,
        Err(error) if shutdown.is_requested() => {
            if !matches!(error.downcast_ref(), Some(Error::Stopped)) {
                tracing::warn!("stopped before it was done: {error:#}");
            }
            End::Done
        }
        Err(error) => End::Failed(error),
    }
}

/// Requests the shutdown at the first signal; returns at the second one, or when the work takes too long.
async fn enforce(shutdown: &Shutdown) -> ExitCode {
    let mut signals = Signals::listen();
    signals.next().await;
    shutdown.request();
    let limit = humantime::format_duration(SHUTDOWN_DEADLINE);
    let patience = async {
        sleep(NOTICEABLE).await;
        tracing::info!("finishing the work in hand, for {limit} at most; a second Ctrl-C stops at once");
        sleep(SHUTDOWN_DEADLINE - NOTICEABLE).await;
        tracing::warn!(
            "stopped with work in hand: what was not acknowledged is delivered again, what was not confirmed \
             may or may not have arrived"
        );
    };
    tokio::select! {
        () = signals.next() => ExitCode::from(130),
        () = patience => ExitCode::SUCCESS,
    }
}

/// Ctrl-C and SIGTERM. Listens without a gap, so that a second signal on the heels of the first counts.
#[cfg(unix)]
struct Signals([Option<tokio::signal::unix::Signal>; 2]);

#[cfg(unix)]
impl Signals {
    fn listen() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self([SignalKind::interrupt(), SignalKind::terminate()].map(|kind| {
            signal(kind).inspect_err(|error| tracing::warn!("cannot listen for signals: {error}")).ok()
        }))
    }

    async fn next(&mut self) {
        async fn received(signal: &mut Option<tokio::signal::unix::Signal>) {
            match signal {
                Some(signal) => {
                    signal.recv().await;
                }
                None => std::future::pending().await,
            }
        }
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            () = received(interrupt) => {}
            () = received(terminate) => {}
        }
    }
}

/// Ctrl-C alone.
#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn listen() -> Self {
        Self
    }

    async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    let ours = error.chain().find_map(|error| error.downcast_ref::<Error>());
    let hint = ours.and_then(Error::hint).map(|hint| format!("; {hint}")).unwrap_or_default();
    // Nothing can be done if standard error is closed.
    let _ = writeln!(std::io::stderr(), "error: {error:#}{hint}");
    if matches!(ours, Some(Error::Usage(_))) { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Prints a lesson line to standard output, like `println!`.
///
/// Where `println!` panics because nobody reads any more (`receiver | head -1`), this ends the program.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::print_line(format_args!($($text)*)) };
}

/// What [`say!`](crate::say) expands to.
#[doc(hidden)]
pub fn print_line(line: std::fmt::Arguments<'_>) {
    let mut stdout = std::io::stdout().lock();
    if writeln!(stdout, "{line}").and_then(|()| stdout.flush()).is_err() {
        std::process::exit(0);
    }
}
