//! Ctrl-C during the demo: its programs are stopped, so that it fails at once and still cleans up.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};
use std::{io, thread};

use harness::Running;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

/// What comes so soon after the first signal is the same wish: `timeout` signals the process, and then its group.
const SAME_WISH: Duration = Duration::from_millis(200);

/// Whether the demo was interrupted, and what runs. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Interrupt(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    interrupted: Option<Instant>,
    running: Vec<Weak<Running>>,
}

impl Interrupt {
    /// Listens for Ctrl-C and SIGTERM from now on; the second one ends the process at once.
    pub(crate) fn listen() -> io::Result<Self> {
        let interrupt = Self::default();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let mut signals = {
            let _context = runtime.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let shared = interrupt.clone();
        thread::spawn(move || {
            loop {
                runtime.block_on(async {
                    tokio::select! { _ = signals.0.recv() => {}, _ = signals.1.recv() => {} }
                });
                let mut state = shared.lock();
                match state.interrupted {
                    Some(first) if first.elapsed() > SAME_WISH => std::process::exit(130),
                    Some(_) => continue,
                    None => state.interrupted = Some(Instant::now()),
                }
                for program in state.running.iter().filter_map(Weak::upgrade) {
                    // It may have ended by itself.
                    let _ = program.try_interrupt();
                }
            }
        });
        Ok(interrupt)
    }

    /// Whether a signal came.
    pub(crate) fn came(&self) -> bool {
        self.lock().interrupted.is_some()
    }

    /// Stops this program, too, when a signal comes, or has come.
    pub(crate) fn stops(&self, program: &Arc<Running>) {
        let mut state = self.lock();
        state.running.retain(|program| program.strong_count() > 0);
        state.running.push(Arc::downgrade(program));
        if state.interrupted.is_some() {
            let _ = program.try_interrupt();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
