//! Wakes the tasks that wait for lapin once its thread is done with what it has read, instead of each in the
//! middle of that: a wake-up of another thread is a system call, which may cost more than what the task does
//! then, and a task that runs too early waits for lapin's locks.

use std::cell::RefCell;
use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use crate::idle::wake_sleepers_at_work;

thread_local! {
    static HELD: RefCell<Held> = RefCell::default();
}

/// What this thread has to wake.
#[derive(Default)]
struct Held {
    is_holding: bool,
    due: Vec<Waker>,
    /// Of those that do not mind waiting for the next answer.
    patient: Vec<Waker>,
}

/// Wakes those that were held back on this thread, which is lapin's, and holds back whomever it wakes from now on.
/// `answered`: the broker has sent something since the last time.
pub(crate) fn release(answered: bool) {
    let (due, patient) = HELD.with_borrow_mut(|held| {
        // What is woken here may be held back for another reason as well.
        held.is_holding = false;
        (mem::take(&mut held.due), if answered { mem::take(&mut held.patient) } else { Vec::new() })
    });
    due.into_iter().chain(patient).for_each(Waker::wake);
    HELD.with_borrow_mut(|held| held.is_holding = true);
}

/// Wakes whoever is held back on this thread, which is done, and holds back nobody from now on.
///
/// Not left to the end of the thread: a waker may need what the thread has for itself, and that is gone by then.
pub(crate) fn release_all() {
    let held = HELD.take();
    held.due.into_iter().chain(held.patient).for_each(Waker::wake);
}

/// The waker of a task, for threads that hold wake-ups back. On others it wakes at once.
struct HeldBack {
    task: Waker,
    is_patient: bool,
}

impl HeldBack {
    /// Whether this thread wakes it later.
    fn is_held(&self) -> bool {
        // Not at the end of the thread.
        let held = HELD.try_with(|held| {
            let Ok(mut held) = held.try_borrow_mut() else { return false };
            if held.is_holding {
                let list = if self.is_patient { &mut held.patient } else { &mut held.due };
                if !list.last().is_some_and(|last| last.will_wake(&self.task)) {
                    list.push(self.task.clone());
                }
            }
            held.is_holding
        });
        held.unwrap_or(false)
    }
}

impl Wake for HeldBack {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.is_held() {
            self.task.wake_by_ref();
        }
    }
}

/// Awaits `work` with the others.
pub(crate) async fn together<T>(work: impl Future<Output = T>) -> T {
    held_back(work, false).await
}

/// Awaits `work`, after which an answer of the broker has to come. It is worth nothing without that, so nobody is
/// woken for it alone.
pub(crate) async fn patiently<T>(work: impl Future<Output = T>) -> T {
    held_back(work, true).await
}

async fn held_back<T>(work: impl Future<Output = T>, is_patient: bool) -> T {
    let mut work = pin!(work);
    let mut known: Option<(Waker, Waker)> = None;
    poll_fn(|context| {
        let task = context.waker();
        let (_, waker) = match &mut known {
            Some(known) if known.0.will_wake(task) => known,
            known => {
                let held_back = HeldBack { task: task.clone(), is_patient };
                known.insert((task.clone(), Arc::new(held_back).into()))
            }
        };
        let polled = work.as_mut().poll(&mut Context::from_waker(waker));
        if polled.is_pending() {
            // What it waits for may be for lapin to do.
            wake_sleepers_at_work();
        }
        polled
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Poll;
    use std::thread;

    use super::*;

    /// How often a task was woken.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Count {
        fn now(&self) -> usize {
            self.0.load(Ordering::SeqCst)
        }
    }

    /// The waker by which it is polled.
    async fn own_waker() -> Waker {
        poll_fn(|context| Poll::Ready(context.waker().clone())).await
    }

    /// The waker that `count` gives to work that is awaited in some way.
    fn waker(count: &Arc<Count>, work: impl Future<Output = Waker>) -> Waker {
        match pin!(work).poll(&mut Context::from_waker(&count.clone().into())) {
            Poll::Ready(waker) => waker,
            Poll::Pending => unreachable!("it waits for nothing"),
        }
    }

    #[test]
    fn a_thread_that_holds_wakes_on_release_and_the_patient_ones_after_an_answer() {
        let (count, patient) = (Arc::<Count>::default(), Arc::<Count>::default());
        let simple = waker(&count, together(own_waker()));
        let nested = waker(&count, together(together(own_waker())));
        let patient_waker = waker(&patient, together(patiently(own_waker())));
        let at_work = {
            let (count, patient) = (count.clone(), patient.clone());
            move || {
                simple.wake_by_ref();
                assert_eq!(count.now(), 1, "this thread does not hold yet");
                release(false);
                simple.wake_by_ref();
                nested.wake_by_ref();
                patient_waker.wake_by_ref();
                assert_eq!((count.now(), patient.now()), (1, 0));
                release(false);
                assert_eq!((count.now(), patient.now()), (3, 0));
                release(true);
                assert_eq!((count.now(), patient.now()), (3, 1));
                simple.wake_by_ref();
                simple.wake_by_ref();
                release(false);
                assert_eq!(count.now(), 4, "once is enough");
            }
        };
        thread::spawn(at_work).join().unwrap();
    }

    #[test]
    fn whoever_is_held_back_when_the_thread_is_done_is_woken() {
        let (count, patient) = (Arc::<Count>::default(), Arc::<Count>::default());
        let (waker, patient_waker) =
            (waker(&count, together(own_waker())), waker(&patient, patiently(own_waker())));
        let at_work = || {
            release(false);
            waker.wake_by_ref();
            patient_waker.wake();
            release_all();
            waker.wake();
        };
        thread::spawn(at_work).join().unwrap();
        assert_eq!((count.now(), patient.now()), (2, 1));
    }

    #[test]
    fn a_thread_that_does_not_hold_wakes_at_once() {
        let count = Arc::<Count>::default();
        let waker = waker(&count, together(own_waker()));
        thread::spawn(|| release(false)).join().unwrap();
        waker.wake();
        assert_eq!(count.now(), 1);
    }
}
