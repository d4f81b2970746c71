//! Runs the checks: in order, several at once if wanted, each within its time, all within the deadline.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::FutureExt;
use shared::{Connection, Shutdown};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until, timeout};

use crate::check::{Check, Fault, Group, Status, Verdict};
use crate::judge::judge;
use crate::names::{Cleanup, clean_up};
use crate::trial::{Run, Trial, unwrapped};

/// How long the broker may take to show that it is still there, after a check has failed.
const STILL_THERE: Duration = Duration::from_secs(2);

/// How long cleaning up may take.
const AT_LEISURE: Duration = Duration::from_secs(10);

/// The same after a signal: a process has 5 s to stop.
const IN_A_HURRY: Duration = Duration::from_secs(2);

/// How a run came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// All checks had their turn.
    Completely,
    /// The deadline came first.
    Deadline,
    /// A signal came first.
    Interrupted,
}

/// A check and what came of it.
pub(crate) struct Record {
    pub(crate) check: &'static Check,
    pub(crate) verdict: Verdict,
    /// How long each attempt took; empty if it was not tried.
    pub(crate) times: Vec<Duration>,
}

/// What a run came to.
pub(crate) struct Results {
    /// In the order of the plan.
    pub(crate) records: Vec<Record>,
    pub(crate) ended: Ended,
    pub(crate) cleanup: Cleanup,
}

/// What the plan asks for besides the checks.
pub(crate) struct Options {
    pub(crate) repeat: usize,
    pub(crate) jobs: usize,
    pub(crate) deadline: Instant,
}

/// Is told how the run goes.
pub(crate) trait Progress {
    /// A check begins; so many have ended of all.
    fn begins(&mut self, check: &Check, ended: usize, all: usize);
    /// A check has ended.
    fn ended(&mut self, record: &Record);
}

/// Runs the checks and deletes whatever they left, however this ends.
pub(crate) async fn run(
    plan: &[&'static Check],
    run: &Rc<Run>,
    options: &Options,
    shutdown: &Shutdown,
    progress: &mut dyn Progress,
) -> Results {
    let all = async {
        let mut runner = Runner::new(plan, run, options, progress);
        let ended = tokio::select! {
            biased;
            () = shutdown.requested() => Ended::Interrupted,
            () = runner.run_all() => Ended::Completely,
            () = sleep_until(options.deadline) => Ended::Deadline,
        };
        let records = runner.finish(ended).await;
        let mut cleanup = run.cleaned.take();
        // A process that was asked to stop has to hurry.
        let limit = if ended == Ended::Interrupted { IN_A_HURRY } else { AT_LEISURE };
        cleanup.add(clean_up(run, &run.names, limit).await);
        // Where it is not known that all are gone, the guard tries once this process has ended.
        if cleanup.problem.is_none() {
            run.guard.release();
        }
        Results { records, ended, cleanup }
    };
    // The checks stay on this thread: what they share needs no locks.
    LocalSet::new().run_until(all).await
}

struct Runner<'r> {
    plan: &'r [&'static Check],
    run: &'r Rc<Run>,
    options: &'r Options,
    progress: &'r mut dyn Progress,
    waiting: VecDeque<&'static Check>,
    running: JoinSet<Record>,
    /// The attempts under way, by the names of their checks.
    trials: HashMap<&'static str, Rc<std::cell::RefCell<Option<Trial>>>>,
    records: HashMap<&'static str, Record>,
    /// Why there is no broker any more.
    gone: Option<String>,
}

impl<'r> Runner<'r> {
    fn new(
        plan: &'r [&'static Check],
        run: &'r Rc<Run>,
        options: &'r Options,
        progress: &'r mut dyn Progress,
    ) -> Self {
        Self {
            plan,
            run,
            options,
            progress,
            waiting: plan.iter().copied().collect(),
            running: JoinSet::new(),
            trials: HashMap::new(),
            records: HashMap::new(),
            gone: None,
        }
    }

    async fn run_all(&mut self) {
        loop {
            self.start_what_can_start();
            match self.running.join_next().await {
                Some(Ok(record)) => self.ended(record).await,
                // A check's panic is caught in its attempt, and nothing is aborted here.
                Some(Err(_)) => {}
                None if self.waiting.is_empty() => return,
                None => {}
            }
        }
    }

    fn start_what_can_start(&mut self) {
        let mut later = VecDeque::new();
        while let Some(check) = self.waiting.pop_front() {
            if let Some(why) = self.why_not(check) {
                self.record(Record { check, verdict: Verdict::new(Status::Skipped, why), times: Vec::new() });
            } else if self.running.len() < self.options.jobs && self.is_ready(check) {
                self.start(check);
            } else {
                later.push_back(check);
            }
        }
        self.waiting = later;
    }

    /// Whether all that the check needs has ended. What is not in the plan counts as there.
    fn is_ready(&self, check: &Check) -> bool {
        let planned: HashSet<_> = self.plan.iter().map(|check| check.name).collect();
        check.needs.iter().all(|need| !planned.contains(need) || self.records.contains_key(need))
    }

    /// Why the check makes no sense any more, if so.
    fn why_not(&self, check: &Check) -> Option<String> {
        if let Some(gone) = &self.gone {
            return Some(gone.clone());
        }
        let missing = check.needs.iter().find(|need| {
            let status = self.records.get(*need).map(|record| record.verdict.status);
            status.is_some_and(|status| !matches!(status, Status::Pass | Status::Warn))
        })?;
        Some(format!("needs {missing}, which did not pass"))
    }

    fn start(&mut self, check: &'static Check) {
        self.progress.begins(check, self.records.len(), self.plan.len());
        let current = Rc::default();
        self.trials.insert(check.name, Rc::clone(&current));
        let (run, repeat) = (self.run.clone(), self.options.repeat);
        self.running.spawn_local(async move { try_often(check, &run, repeat, &current).await });
    }

    async fn ended(&mut self, record: Record) {
        let Check { name, group, .. } = record.check;
        let failed = record.verdict.status == Status::Fail;
        self.record(record);
        if failed && *group != Group::Connection && self.gone.is_none() && !self.waiting.is_empty() {
            let still_there = still_there(self.run).await;
            self.gone = still_there.err().map(|cause| format!("the broker is gone since {name}: {cause}"));
        }
    }

    fn record(&mut self, record: Record) {
        self.trials.remove(record.check.name);
        self.progress.ended(&record);
        self.records.insert(record.check.name, record);
    }

    /// Ends what is still running, and says of each check what came of it.
    async fn finish(mut self, ended: Ended) -> Vec<Record> {
        self.running.shutdown().await;
        let trials = std::mem::take(&mut self.trials);
        let mut closing = JoinSet::new();
        for check in self.plan {
            if self.records.contains_key(check.name) {
                continue;
            }
            let trial = trials.get(check.name).and_then(|current| current.take());
            if let Some(trial) = trial.clone() {
                closing.spawn_local(async move { trial.close().await });
            }
            let verdict = match (ended, trial) {
                (Ended::Deadline, Some(trial)) => Verdict::failed(Fault {
                    expected: format!("to {} before the deadline", trial.current_step()),
                    seen: "the deadline of the whole run".to_owned(),
                    next: "raise --deadline, or choose fewer checks with --profile quick or --only"
                        .to_owned(),
                }),
                (Ended::Deadline, None) => Verdict::new(Status::Skipped, "not tried before the deadline"),
                (_, Some(_)) => Verdict::new(Status::Skipped, "interrupted"),
                (_, None) => Verdict::new(Status::Skipped, "not tried: interrupted"),
            };
            self.record(Record { check, verdict, times: Vec::new() });
        }
        while closing.join_next().await.is_some() {}
        let mut records = self.records;
        self.plan.iter().filter_map(|check| records.remove(check.name)).collect()
    }
}

/// Tries a check so often, up to the first attempt that does not pass.
async fn try_often(
    check: &'static Check,
    run: &Rc<Run>,
    repeat: usize,
    current: &std::cell::RefCell<Option<Trial>>,
) -> Record {
    let mut times = Vec::new();
    let mut worst: Option<Verdict> = None;
    for round in 0..repeat {
        let trial = Trial::new(run, check.name, round);
        *current.borrow_mut() = Some(trial.clone());
        let (mut verdict, took) = attempt(check, &trial).await;
        times.push(took);
        let over = !matches!(verdict.status, Status::Pass | Status::Warn);
        if over && round > 0 {
            verdict.note = format!("attempt {} of {repeat}: {}", round + 1, verdict.note);
        }
        if worst.as_ref().is_none_or(|worst| verdict.status > worst.status) {
            worst = Some(verdict);
        }
        if over {
            break;
        }
        if round + 1 < repeat {
            // So that what is left to do at the end stays small.
            let cleanup = clean_up(run, trial.names(), AT_LEISURE).await;
            // Otherwise the end of the run tries again.
            if cleanup.problem.is_none() {
                run.cleaned.borrow_mut().add(cleanup);
            }
        }
    }
    let verdict = worst.unwrap_or_else(|| Verdict::new(Status::Skipped, "not tried"));
    Record { check, verdict, times }
}

/// One attempt; its connections are closed afterwards, whatever comes of it.
async fn attempt(check: &'static Check, trial: &Trial) -> (Verdict, Duration) {
    let run = trial.run();
    let wait = if check.group == Group::Connection { run.wait_left() } else { Duration::ZERO };
    let limit = run.timeout + check.rests + wait;
    let started = Instant::now();
    let result = timeout(limit, AssertUnwindSafe((check.run)(trial.clone())).catch_unwind()).await;
    let took = started.elapsed();
    // A broker that is waited for is not slow.
    let counted = took.saturating_sub(wait);
    let verdict = match result {
        Ok(Ok(result)) => judge(check, trial, Some(result), counted, limit),
        Ok(Err(panic)) => Verdict::failed(Fault {
            expected: format!("to {}", trial.current_step()),
            seen: format!("a fault of this program: {}", panic_text(&*panic)),
            next: "report it with this line".to_owned(),
        }),
        Err(_) => judge(check, trial, None, counted, limit),
    };
    trial.close().await;
    (verdict, took)
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

/// Whether the broker can still be connected to; the reason if not.
async fn still_there(run: &Run) -> Result<(), String> {
    let shutdown = Shutdown::new();
    let opened =
        timeout(STILL_THERE, Connection::open(&run.args_for(STILL_THERE / 2), "smoke", &shutdown)).await;
    let answer = match opened {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(unwrapped(error).to_string()),
        Err(_) => Err(format!("no answer within {}", humantime::format_duration(STILL_THERE))),
    };
    shutdown.close_connections().await;
    answer
}

#[cfg(test)]
mod tests {
    use lapin::options::QueueDeclareOptions;
    use shared::ConnectionArgs;

    use super::*;
    use crate::check::{Finding, pass};
    use crate::trial::random_word;

    /// Keeps nothing.
    struct Silent;

    impl Progress for Silent {
        fn begins(&mut self, _: &Check, _: usize, _: usize) {}
        fn ended(&mut self, _: &Record) {}
    }

    const fn check(
        name: &'static str,
        needs: &'static [&'static str],
        run: fn(Trial) -> crate::check::Running,
    ) -> Check {
        Check { name, about: "", group: Group::Features, needs, rests: Duration::ZERO, run }
    }

    /// Makes a queue that stays.
    async fn make_a_queue(trial: &Trial) -> shared::Result<Finding> {
        let queue = trial.queue("left")?;
        let made = trial.alone(async |session| {
            let options = QueueDeclareOptions::durable();
            queue_lifecycle::declare(&session.channel, &queue, options, trial.expiring().classic()).await
        });
        made.await?;
        pass("")
    }

    static CHECKS: [Check; 4] = [
        check("panics", &[], |trial| {
            Box::pin(async move {
                make_a_queue(&trial).await?;
                trial.step("do the impossible");
                panic!("a test panics");
            })
        }),
        check("hangs", &[], |trial| {
            Box::pin(async move {
                make_a_queue(&trial).await?;
                trial.step("wait for ever");
                std::future::pending().await
            })
        }),
        check("fine", &[], |trial| Box::pin(async move { make_a_queue(&trial).await })),
        check("needy", &["panics"], |_| Box::pin(async { pass("") })),
    ];

    /// Runs the checks; how each ended, with its note, and what became of the names.
    async fn results(url: &str, jobs: usize) -> (Vec<(Status, String)>, Cleanup) {
        let args = ConnectionArgs::for_url(url);
        let minute = Duration::from_secs(60);
        let given = Rc::new(Run {
            endpoint: args.endpoint().unwrap(),
            args,
            id: random_word(),
            names: Default::default(),
            cleaned: Default::default(),
            guard: Default::default(),
            expires: minute,
            timeout: Duration::from_secs(2),
            slow: minute,
            patience: Instant::now(),
            broker: Default::default(),
        });
        let plan: Vec<_> = CHECKS.iter().collect();
        let options = Options { repeat: 1, jobs, deadline: Instant::now() + minute };
        let results = run(&plan, &given, &options, &Shutdown::new(), &mut Silent).await;
        assert_eq!(results.ended, Ended::Completely);
        let records = results.records.into_iter().map(|record| (record.verdict.status, record.verdict.note));
        (records.collect(), results.cleanup)
    }

    #[tokio::test]
    async fn a_check_that_panics_or_hangs_fails_alone_and_leaves_nothing() {
        let vhost = broker::node().vhost().unwrap();
        for jobs in [1, 4] {
            let (records, cleanup) = results(&vhost.url(), jobs).await;
            let [panics, hangs, fine, needy] = &records[..] else { panic!("{records:?}") };
            assert_eq!(panics.0, Status::Fail);
            assert!(
                panics.1.contains("to do the impossible; seen: a fault of this program: a test panics"),
                "{panics:?}"
            );
            assert_eq!(hangs.0, Status::Fail);
            assert!(hangs.1.contains("to wait for ever within 2s; seen: nothing"), "{hangs:?}");
            assert_eq!(fine.0, Status::Pass);
            assert_eq!(needy, &(Status::Skipped, "needs panics, which did not pass".to_owned()));
            assert_eq!((cleanup.made, &*cleanup.left, &cleanup.problem), (3, &[][..], &None));
        }
        assert!(vhost.queues().unwrap().is_empty());
    }
}
