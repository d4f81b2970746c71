//! Tasks on lapin's thread: what they give to lapin, and what they get from it, needs no other thread to be woken.

use std::future::poll_fn;
use std::mem;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use futures_lite::Stream;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::idle::{Sleeper, Sleepers, wake_sleepers};

/// A future that one thread polls now, and another one later.
pub(crate) struct Movable<T>(Arc<Mutex<BoxFuture<'static, T>>>);

impl<T> Movable<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(work.boxed())))
    }

    /// Goes on with it where this is awaited.
    pub(crate) async fn here(&self) -> T {
        poll_fn(|context| lock(&self.0).as_mut().poll(context)).await
    }
}

/// A thread of lapin's that runs tasks.
pub(crate) struct IoThread {
    sleeper: Arc<Sleeper>,
    /// Whether one of its tasks can go on, or is new.
    called: AtomicBool,
    /// Tasks that are yet to begin. `None` once it has ended.
    new: Mutex<Option<Vec<BoxFuture<'static, ()>>>>,
}

impl IoThread {
    /// Goes on with `work` there. `None` if the thread ends first. Once this is dropped, the work is not polled again.
    pub(crate) async fn run<T: Send + 'static>(self: &Arc<Self>, work: &Movable<T>) -> Option<T> {
        let work = Movable(work.0.clone());
        let (mut sender, result) = oneshot::channel();
        let task = async move {
            tokio::select! {
                biased;
                () = sender.closed() => {}
                result = AssertUnwindSafe(work.here()).catch_unwind() => drop(sender.send(result)),
            }
        };
        // What is dropped may panic as well, and the thread is lapin's.
        let task = AssertUnwindSafe(task).catch_unwind().map(drop);
        lock(&self.new).as_mut()?.push(task.boxed());
        self.wake_by_ref();
        result.await.ok().map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
    }

    /// Whether there was a call, which is taken for answered.
    fn take_call(&self) -> bool {
        self.called.swap(false, Ordering::AcqRel)
    }
}

impl Wake for IoThread {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.called.swap(true, Ordering::AcqRel);
        self.sleeper.wake();
    }
}

/// The tasks of a thread of lapin's.
pub(crate) struct Tasks {
    pub(crate) thread: Arc<IoThread>,
    runtime: Handle,
    sleepers: Sleepers,
    waker: Waker,
    all: FuturesUnordered<BoxFuture<'static, ()>>,
}

impl Tasks {
    pub(crate) fn new(sleeper: Arc<Sleeper>) -> Self {
        let thread = IoThread { sleeper, called: AtomicBool::new(false), new: Mutex::new(Some(Vec::new())) };
        let thread = Arc::new(thread);
        let waker = thread.clone().into();
        Self {
            thread,
            runtime: Handle::current(),
            sleepers: Sleepers::here(),
            waker,
            all: FuturesUnordered::new(),
        }
    }

    /// Runs those that can go on, until they rest or have had their share. Whether there were any.
    pub(crate) fn run(&mut self) -> bool {
        let Self { thread, runtime, sleepers, waker, all } = self;
        if !thread.take_call() {
            return false;
        }
        thread.sleeper.is_up();
        sleepers.adopt();
        let mut context = Context::from_waker(waker);
        let mut poll = || {
            all.extend(lock(&thread.new).as_mut().map(mem::take).unwrap_or_default());
            while let Poll::Ready(Some(())) = Pin::new(&mut *all).poll_next(&mut context) {}
        };
        // Within tokio they have its timers, and what it calls a budget.
        runtime.block_on(async {
            poll();
            // It calls itself after it has polled each of them once, which need not mean that one can go on.
            if thread.take_call() {
                poll();
            }
        });
        // What they gave to other connections.
        wake_sleepers();
        true
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        let _runtime = self.runtime.enter();
        let _not_begun = lock(&self.thread.new).take();
        self.all.clear();
    }
}

/// What panicked is not polled again.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
