//! Stopping on Ctrl-C and SIGTERM, whatever the program is doing.

use std::io;
use std::process::exit;
use std::thread;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::time::{Instant, sleep};

use crate::{SHUTDOWN_DEADLINE, Shutdown};

/// A stop that takes longer than this is worth a word.
const NOTICEABLE: Duration = Duration::from_millis(500);

/// What comes so soon after the first signal is the same wish: `timeout` and supervisors signal the process, and
/// then its group.
const SAME_WISH: Duration = Duration::from_millis(200);

/// Requests the shutdown at the first signal, and ends the process at the second one (130) or when the work
/// in hand takes longer than [`SHUTDOWN_DEADLINE`] (0).
///
/// On a thread of its own: the program's may be stuck in writing to a pipe that nobody reads.
pub(crate) fn request_on_signals(shutdown: Shutdown) -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut signals = {
        let _runtime = runtime.enter();
        Signals::listen()?
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            signals.next().await;
            shutdown.request();
            tokio::select! {
                () = signals.second() => exit(130),
                () = work_in_hand() => exit(0),
            }
        });
    })?;
    Ok(())
}

async fn work_in_hand() {
    sleep(NOTICEABLE).await;
    let limit = humantime::format_duration(SHUTDOWN_DEADLINE);
    tracing::info!("finishing the work in hand, for {limit} at most; a second Ctrl-C stops at once");
    sleep(SHUTDOWN_DEADLINE - NOTICEABLE).await;
    tracing::warn!(
        "stopped with work in hand: what was not acknowledged is delivered again, what was not confirmed \
         may or may not have arrived"
    );
}

impl Signals {
    /// The next one that is more than an echo of the first, which came just now.
    async fn second(&mut self) {
        let first = Instant::now();
        self.next().await;
        while first.elapsed() < SAME_WISH {
            self.next().await;
        }
    }
}

/// Ctrl-C and SIGTERM.
#[cfg(unix)]
struct Signals([tokio::signal::unix::Signal; 2]);

#[cfg(unix)]
impl Signals {
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self([signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?]))
    }

    async fn next(&mut self) {
        let [interrupt, terminate] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// Ctrl-C alone.
#[cfg(windows)]
struct Signals(tokio::signal::windows::CtrlC);

#[cfg(windows)]
impl Signals {
    fn listen() -> io::Result<Self> {
        tokio::signal::windows::ctrl_c().map(Self)
    }

    async fn next(&mut self) {
        self.0.recv().await;
    }
}
