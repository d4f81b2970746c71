//! Wakes tasks that wait for lapin together. Its thread wakes each by itself, and to wake a task of another
//! thread takes a system call, which may cost more than what the task does then.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Wake, Waker};

use tokio::sync::Notify;

/// The tasks that are to be woken. Whoever comes first has the others woken as well.
#[derive(Default)]
pub(crate) struct WakeUps {
    /// `None`: nobody passes them on, not yet or not any more.
    due: Mutex<Option<Vec<Waker>>>,
    first: Notify,
}

/// The waker of a task, by way of the others.
struct Together {
    wake_ups: Arc<WakeUps>,
    task: Waker,
}

impl Wake for Together {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match &mut *self.wake_ups.lock() {
            None => self.task.wake_by_ref(),
            Some(due) => {
                due.push(self.task.clone());
                if due.len() == 1 {
                    self.wake_ups.first.notify_one();
                }
            }
        }
    }
}

impl WakeUps {
    /// Passes wake-ups on while `work` is under way; before and after that each is for itself.
    pub(crate) async fn pass_on<T>(&self, work: impl Future<Output = T>) -> T {
        let _end = End(self);
        *self.lock() = Some(Vec::new());
        let pass_on = async {
            loop {
                self.first.notified().await;
                let due = self.lock().as_mut().map(mem::take);
                due.into_iter().flatten().for_each(Waker::wake);
            }
        };
        tokio::select! {
            value = work => value,
            () = pass_on => unreachable!("it has no end"),
        }
    }

    /// Awaits `work`, which is lapin's, with the others.
    pub(crate) async fn together<T>(self: &Arc<Self>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut known: Option<(Waker, Waker)> = None;
        poll_fn(|context| {
            let task = context.waker();
            let (_, waker) = match &mut known {
                Some(known) if known.0.will_wake(task) => known,
                known => known.insert((
                    task.clone(),
                    Arc::new(Together { wake_ups: self.clone(), task: task.clone() }).into(),
                )),
            };
            work.as_mut().poll(&mut Context::from_waker(waker))
        })
        .await
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<Waker>>> {
        self.due.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the passing on.
struct End<'w>(&'w WakeUps);

impl Drop for End<'_> {
    fn drop(&mut self) {
        let due = self.0.lock().take();
        due.into_iter().flatten().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join_all;
    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    /// A thread answers a hundred tasks, each of which has begun to wait.
    async fn answered_by_a_thread(wake_ups: &Arc<WakeUps>) {
        let (asked, questions) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let all: Vec<oneshot::Sender<()>> = questions.iter().take(100).collect();
            all.into_iter().for_each(|answer| answer.send(()).expect("somebody waits"));
        });
        let tasks = (0..100).map(|_| {
            let (wake_ups, asked) = (wake_ups.clone(), asked.clone());
            tokio::spawn(async move {
                let (answer, mut answered) = oneshot::channel();
                let waiting = async {
                    // Asks only once its waker is known.
                    let mut answer = Some(answer);
                    poll_fn(|context| {
                        let ready = pin!(&mut answered).poll(context);
                        if let Some(answer) = answer.take() {
                            asked.send(answer).expect("the thread waits");
                        }
                        ready
                    })
                    .await
                };
                wake_ups.together(waiting).await
            })
        });
        let tasks = join_all(tasks);
        for answer in timeout(Duration::from_secs(10), tasks).await.expect("all are woken") {
            answer.unwrap().unwrap();
        }
        thread.join().unwrap();
    }

    #[tokio::test]
    async fn all_are_woken_while_they_are_passed_on_and_before_and_after_that() {
        let wake_ups = Arc::default();
        answered_by_a_thread(&wake_ups).await;
        wake_ups.pass_on(answered_by_a_thread(&wake_ups)).await;
        answered_by_a_thread(&wake_ups).await;
    }

    #[tokio::test]
    async fn whoever_is_due_at_the_end_is_woken() {
        let wake_ups = Arc::new(WakeUps::default());
        let (answer, answered) = oneshot::channel();
        let waiting = tokio::spawn({
            let wake_ups = wake_ups.clone();
            async move { wake_ups.together(answered).await }
        });
        yield_now().await;
        // Over in the same step as the answer, so that nobody has passed it on by then.
        wake_ups.pass_on(async { answer.send(()).expect("the task waits") }).await;
        timeout(Duration::from_secs(10), waiting).await.expect("it is woken").unwrap().unwrap();
    }
}
