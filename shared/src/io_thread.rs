//! A thread of lapin's that waits for its socket by itself, and runs tasks meanwhile: what they give to lapin, and
//! what they get from it, needs no other thread to be woken.
//!
//! Nothing may be forgotten between the last look and the sleep. So the order is, on this thread: it is told that
//! there is nothing to read, says that it falls asleep, looks for something to write, looks for a call, waits. On
//! another one: it gives lapin something, or a task a reason to go on, calls, and rings if this thread has said that
//! it falls asleep. Calls are *swaps* on both sides: whichever comes second sees all that the first one did before.

use std::future::poll_fn;
use std::mem;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use futures_lite::Stream;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::idle::{Sleepers, wake_sleepers};
use crate::lock::lock;

/// A future that one thread polls now, and another one later.
pub(crate) struct Movable<T>(Arc<Mutex<BoxFuture<'static, T>>>);

impl<T> Movable<T> {
    pub(crate) fn new(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(work.boxed())))
    }

    /// Goes on with it where this is awaited. After a panic it is not polled again.
    pub(crate) async fn here(&self) -> T {
        poll_fn(|context| lock(&self.0).as_mut().poll(context)).await
    }
}

/// The thread, for those who have something for it.
pub(crate) struct IoThread {
    bell: mio::Waker,
    /// Whether it is to be rung for: it waits, or is about to.
    asleep: AtomicBool,
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

    /// To be called before the last look for something to do: what comes after it ends the sleep at once.
    pub(crate) fn falls_asleep(&self) {
        self.asleep.store(true, Ordering::Release);
    }

    pub(crate) fn is_up(&self) {
        self.asleep.store(false, Ordering::Release);
    }

    /// Ends its sleep.
    pub(crate) fn ring(&self) {
        if self.asleep.swap(false, Ordering::AcqRel) {
            // There is nothing to be done about an error; the next look is soon.
            let _ = self.bell.wake();
        }
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
        self.ring();
    }
}

/// The tasks of such a thread.
pub(crate) struct Tasks {
    pub(crate) thread: Arc<IoThread>,
    runtime: Handle,
    sleepers: Sleepers,
    waker: Waker,
    all: FuturesUnordered<Task>,
}

/// Polled within tokio, it has tokio's timers, and a share of its own of what can be done at once.
struct Task {
    runtime: Handle,
    work: BoxFuture<'static, ()>,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { runtime, work } = &mut *self;
        runtime.block_on(poll_fn(|_| Poll::Ready(work.as_mut().poll(context))))
    }
}

impl Tasks {
    /// None yet. Whoever is woken on this thread later on wakes that one, by `bell`.
    pub(crate) fn new(bell: mio::Waker) -> Self {
        let thread = Arc::new(IoThread {
            bell,
            asleep: AtomicBool::new(false),
            called: AtomicBool::new(false),
            new: Mutex::new(Some(Vec::new())),
        });
        let sleepers = Sleepers::here();
        sleepers.add(&thread);
        let (runtime, waker) = (Handle::current(), thread.clone().into());
        Self { thread, runtime, sleepers, waker, all: FuturesUnordered::new() }
    }

    /// Runs those that can go on, until they rest or have had their share. Whether there were any.
    pub(crate) fn run(&mut self) -> bool {
        let Self { thread, runtime, sleepers, waker, all } = self;
        if !thread.take_call() {
            return false;
        }
        thread.is_up();
        sleepers.adopt();
        let mut context = Context::from_waker(waker);
        let mut poll = || {
            let new = lock(&thread.new).as_mut().map(mem::take).unwrap_or_default();
            all.extend(new.into_iter().map(|work| Task { runtime: runtime.clone(), work }));
            while let Poll::Ready(Some(())) = Pin::new(&mut *all).poll_next(&mut context) {}
        };
        // What ends is dropped here, and may need tokio.
        let _runtime = runtime.enter();
        poll();
        // It calls itself after it has polled each of them once, which need not mean that one can go on.
        if thread.take_call() {
            poll();
        }
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
