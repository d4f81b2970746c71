//! The program's thread, which wakes lapin's before it goes to sleep.
//!
//! A [thread of lapin's](crate::io_thread) that waits for its socket does not see what it is given to write. It is
//! woken for all of that at once, when the program's thread has nothing else to do, or another one of lapin's has
//! run its tasks. What a thread that is always busy hands over, or any other one, is seen within a quarter of a second, by
//! [`Link::watch`](crate::link::Link::watch).

use std::cell::{Cell, RefCell};
use std::io;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Id, Runtime};

use crate::io_thread::IoThread;
use crate::lock::lock;

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

/// lapin's threads of one [`runtime`], as far as they wait for their sockets.
#[derive(Clone, Default)]
pub(crate) struct Sleepers(Arc<Mutex<Vec<Weak<IoThread>>>>);

impl Sleepers {
    /// Those that this thread wakes.
    pub(crate) fn here() -> Self {
        SLEEPERS.with_borrow(Self::clone)
    }

    /// This thread is at work from now on, and wakes them when it is done.
    pub(crate) fn adopt(&self) {
        SLEEPERS.with_borrow_mut(|here| {
            if !Arc::ptr_eq(&here.0, &self.0) {
                *here = self.clone();
            }
        });
        LOOKED.set(Some(Instant::now()));
    }

    pub(crate) fn add(&self, thread: &Arc<IoThread>) {
        lock(&self.0).push(Arc::downgrade(thread));
    }

    fn are_there(&self) -> bool {
        !lock(&self.0).is_empty()
    }

    fn wake(&self) {
        lock(&self.0).retain(|thread| thread.upgrade().inspect(|thread| thread.ring()).is_some());
    }
}

/// The runtime of [`run`](crate::run), for a program with a `main` of its own: tokio on this thread alone, on
/// which connections need one wake-up for each answer of the broker instead of two.
///
/// What another thread hands to lapin on such a connection is seen within a quarter of a second.
///
/// # Errors
/// What the operating system says.
pub fn runtime() -> io::Result<Runtime> {
    let sleepers = Sleepers::here();
    // Whichever thread it is that blocks on the runtime then.
    let before_sleep = move || {
        sleepers.adopt();
        wake_sleepers();
    };
    let runtime = Builder::new_current_thread().enable_all().on_thread_park(before_sleep).build()?;
    RUNTIME.set(Some(runtime.handle().id()));
    Ok(runtime)
}

/// Whether this is on a [`runtime`], whose thread wakes lapin's.
pub(crate) fn is_on_runtime() -> bool {
    RUNTIME.get() == Some(Handle::current().id())
}

/// Wakes lapin's threads if this one has been at work for long, which is the result. Where none of them waits for its
/// socket by itself, it is never long.
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
