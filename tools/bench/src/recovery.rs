//! How soon messages flow again after the broker was killed, or the connection was reset.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use broker::{Node, speaks_amqp};
use harness::Relay;
use serde_json::json;
use shared::{message_id, say};

use crate::contestant::Contestant;
use crate::table::Spread;

/// After this time it is called never.
const NEVER: Duration = Duration::from_secs(15);

/// A connection that lasts longer than a second counts as a success for `shared`, which then begins with its
/// shortest pause.
const CALM: Duration = Duration::from_millis(1200);

/// Time for one look at a port.
const LOOK: Duration = Duration::from_millis(100);

/// How long each contestant took to recover, once for each fault; `None` for never.
pub(crate) struct Recoveries {
    pub(crate) fault: &'static str,
    pub(crate) contestant: String,
    pub(crate) times: Vec<Option<Duration>>,
}

/// Kills and restarts a node; the time counts from the first AMQP answer of its port.
pub(crate) fn restarts(node: &Node, count: usize) -> Result<Vec<Recoveries>> {
    let (url, port) = (node.url(), node.port());
    let mut flows = [Flow::new(Contestant::Shared, &url)?, Flow::new(Contestant::Lapin, &url)?];
    for _ in 0..count {
        for flow in &mut flows {
            flow.make_flow()?;
        }
        thread::sleep(CALM);
        node.kill()?;
        let answer = thread::spawn(move || {
            while !speaks_amqp(("127.0.0.1", port), LOOK) {
                thread::sleep(Duration::from_millis(1));
            }
            Instant::now()
        });
        let marks = thread::scope(|scope| -> Result<Vec<_>> {
            let marks = scope.spawn(|| -> Result<Vec<_>> {
                let since = answer.join().ok().context("the look-out panicked")?;
                Ok(flows.iter().map(|flow| (since, flow.next())).collect())
            });
            node.restart()?;
            marks.join().ok().context("the look-out panicked")?
        })?;
        note(&mut flows, "restart", &marks);
    }
    Ok(flows.into_iter().map(|flow| flow.recoveries("restart")).collect())
}

/// Resets the connections of each contestant, while the broker is up.
pub(crate) fn resets(node: &Node, count: usize) -> Result<Vec<Recoveries>> {
    let (url, port) = (node.url(), node.port());
    let relays = [Relay::start(("127.0.0.1", port))?, Relay::start(("127.0.0.1", port))?];
    let through = |relay: &Relay| url.replace(&format!(":{port}/"), &format!(":{}/", relay.port()));
    let mut flows = [
        Flow::new(Contestant::Shared, &through(&relays[0]))?,
        Flow::new(Contestant::Lapin, &through(&relays[1]))?,
    ];
    for _ in 0..count {
        for flow in &mut flows {
            flow.make_flow()?;
        }
        thread::sleep(CALM);
        let marks: Vec<_> = relays
            .iter()
            .zip(&flows)
            .map(|(relay, flow)| {
                relay.cut();
                (Instant::now(), flow.next())
            })
            .collect();
        note(&mut flows, "reset", &marks);
    }
    Ok(flows.into_iter().map(|flow| flow.recoveries("reset")).collect())
}

fn note(flows: &mut [Flow], fault: &str, marks: &[(Instant, u64)]) {
    for (flow, (since, from)) in flows.iter_mut().zip(marks) {
        let time = flow.flows_again(*since, *from);
        let ms = time.map(|time| time.as_secs_f64() * 1000.0);
        say!("{}", json!({"fault": fault, "contestant": flow.contestant.to_string(), "back_after_ms": ms}));
        flow.times.push(time);
    }
}

/// A contestant's flow, and what is seen of it.
struct Flow {
    contestant: Contestant,
    url: String,
    queue: String,
    seen: Arc<Seen>,
    process: Option<Child>,
    times: Vec<Option<Duration>>,
}

#[derive(Default)]
struct Seen {
    /// The message that is being published.
    sent: AtomicU64,
    /// Those that came, each later than all before, and when.
    got: Mutex<Vec<(u64, Instant)>>,
}

impl Seen {
    fn got(&self) -> MutexGuard<'_, Vec<(u64, Instant)>> {
        // A panic elsewhere cannot leave the list half changed.
        self.got.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, number: u64) {
        let mut got = self.got();
        if got.last().is_none_or(|(latest, _)| *latest < number) {
            got.push((number, Instant::now()));
        }
    }

    fn latest(&self) -> u64 {
        self.got().last().map_or(0, |(number, _)| *number)
    }
}

impl Flow {
    fn new(contestant: Contestant, url: &str) -> Result<Self> {
        let queue = format!("bench.flow.{}", message_id());
        Ok(Self {
            contestant,
            url: url.to_owned(),
            queue,
            seen: Arc::default(),
            process: None,
            times: Vec::new(),
        })
    }

    /// Starts it, unless it flows.
    fn make_flow(&mut self) -> Result<()> {
        let (since, before) = (Instant::now(), self.seen.latest());
        if self.process.is_some() && self.flows_again(since, before + 1).is_some() {
            return Ok(());
        }
        self.end();
        self.seen = Arc::default();
        let mut command = self.contestant.command("flow")?;
        command.args(["0", &self.queue]).env("AMQP_URL", &self.url).env("RUST_LOG", "off");
        let mut process = command.stdout(Stdio::piped()).spawn().context("cannot start a flow")?;
        let lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        self.process = Some(process);
        let seen = self.seen.clone();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                match line.split_once(' ').map(|(word, number)| (word, number.parse().unwrap_or(0))) {
                    Some(("sent", number)) => drop(seen.sent.fetch_max(number, Ordering::SeqCst)),
                    Some(("got", number)) => seen.note(number),
                    _ => {}
                }
            }
        });
        ensure!(
            self.flows_again(Instant::now(), 1).is_some(),
            "{}: its messages do not flow",
            self.contestant
        );
        Ok(())
    }

    /// A message that is certainly not on its way yet: the news of the latest comes through a pipe.
    fn next(&self) -> u64 {
        self.seen.sent.load(Ordering::SeqCst).max(self.seen.latest()) + 2
    }

    fn flows_again(&self, since: Instant, from: u64) -> Option<Duration> {
        while since.elapsed() < NEVER {
            if let Some((_, at)) = self.seen.got().iter().find(|(number, at)| *number >= from && *at >= since)
            {
                return Some(at.duration_since(since));
            }
            thread::sleep(Duration::from_millis(1));
        }
        None
    }

    fn end(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn recoveries(mut self, fault: &'static str) -> Recoveries {
        self.end();
        let (contestant, times) = (self.contestant.to_string(), std::mem::take(&mut self.times));
        Recoveries { fault, contestant, times }
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.end();
    }
}

/// The recoveries as a table in Markdown.
pub(crate) fn table(recoveries: &[Recoveries]) -> String {
    let mut table =
        "| fault | | times | back after, ms: median (lowest–highest) | never |\n|---|---|---|---|---|"
            .to_owned();
    for Recoveries { fault, contestant, times } in recoveries {
        let never = times.iter().filter(|time| time.is_none()).count();
        let ms = times.iter().flatten().map(|time| time.as_secs_f64() * 1000.0);
        let spread =
            Spread::of(ms).map(|Spread { low, median, high }| format!("{median:.0} ({low:.0}–{high:.0})"));
        let spread = spread.unwrap_or_else(|| "–".to_owned());
        table += &format!("\n| {fault} | {contestant} | {} | {spread} | {never} |", times.len());
    }
    table
}
