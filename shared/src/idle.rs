//! The program's thread, which wakes lapin's before it goes to sleep.
//!
//! A thread of lapin's that waits for its [socket](crate::socket) does not see what it is given to write. It is
//! woken for all of that at once, when the program's thread has nothing else to do, or another one of lapin's has
//! run its [tasks](crate::io_thread); a thread that always has, and those that are neither, are seen after.

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use mio::{Registry, Token, Waker};
use tokio::runtime::{Builder, Handle, Id, Runtime};

/// How long lapin's threads are left asleep while the program's is at work.
const AT_WORK: Duration = Duration::from_millis(1);

thread_local! {
    /// This thread's [`runtime`]: the last one, if it made several.
    static RUNTIME: Cell<Option<Id>> = const { Cell::new(None) };
    /// Those that this thread wakes.
    static SLEEPERS: RefCell<Sleepers> = RefCell::default();
    /// When they were last looked at, or this thread began to work.
    static LOOKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// lapin's threads of one [`runtime`].
#[derive(Clone, Default)]
pub(crate) struct Sleepers(Arc<Mutex<Vec<Weak<Sleeper>>>>);

impl Sleepers {
    /// Those that this thread wakes.
    pub(crate) fn here() -> Self {
        SLEEPERS.with_borrow(Self::clone)
    }

    /// This thread, one of them, is at work from now on, and wakes the others as well.
    pub(crate) fn adopt(&self) {
        SLEEPERS.set(self.clone());
        LOOKED.set(Some(Instant::now()));
    }

    fn add(&self, sleeper: &Arc<Sleeper>) {
        self.lock().push(Arc::downgrade(sleeper));
    }

    fn are_there(&self) -> bool {
        !self.lock().is_empty()
    }

    fn wake(&self) {
        self.lock().retain(|sleeper| sleeper.upgrade().inspect(|sleeper| sleeper.wake()).is_some());
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Sleeper>>> {
        // A panic elsewhere cannot leave the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread of lapin's, when it waits for its socket.
pub(crate) struct Sleeper {
    waker: Waker,
    /// Set before it looks a last time for something to write.
    asleep: AtomicBool,
}

/// The runtime of [`run`](crate::run), for a program with a `main` of its own: tokio on this thread alone, on
/// which connections need one wake-up for each answer of the broker instead of two.
///
/// What another thread hands to lapin on such a connection is seen within a quarter of a second.
///
/// # Errors
/// What the operating system says.
pub fn runtime() -> io::Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().on_thread_park(wake_sleepers).build()?;
    RUNTIME.set(Some(runtime.handle().id()));
    Ok(runtime)
}

/// Whether this is on a [`runtime`], whose thread wakes lapin's.
pub(crate) fn is_on_runtime() -> bool {
    RUNTIME.get() == Some(Handle::current().id())
}

/// Wakes lapin's threads if this one has been at work for long, which is the result. Never where none waits for its
/// socket itself.
pub(crate) fn wake_sleepers_at_work() -> bool {
    let is_long = LOOKED.get().is_none_or(|looked| looked.elapsed() > AT_WORK);
    if is_long {
        wake_sleepers();
    }
    is_long && SLEEPERS.with_borrow(Sleepers::are_there)
}

/// Wakes lapin's threads, as far as they sleep.
pub(crate) fn wake_sleepers() {
    LOOKED.set(Some(Instant::now()));
    SLEEPERS.with_borrow(Sleepers::wake);
}

impl Sleeper {
    /// One that this thread wakes out of a wait on `registry`, with an event of `token`.
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Arc<Self>> {
        let sleeper = Arc::new(Self { waker: Waker::new(registry, token)?, asleep: AtomicBool::new(false) });
        Sleepers::here().add(&sleeper);
        Ok(sleeper)
    }

    /// To be called before the last look for something to do: what comes after it ends the sleep at once.
    pub(crate) fn falls_asleep(&self) {
        self.asleep.store(true, Ordering::Release);
    }

    pub(crate) fn is_up(&self) {
        self.asleep.store(false, Ordering::Release);
    }

    pub(crate) fn wake(&self) {
        if self.asleep.swap(false, Ordering::AcqRel) {
            // There is nothing to be done about an error; the next look is soon.
            let _ = self.waker.wake();
        }
    }
}
