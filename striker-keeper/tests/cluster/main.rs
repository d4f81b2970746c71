//! Three nodes as one cluster: what striker and keeper see when nodes of it die.
//!
//! With `--nocapture` it prints what it measured, which is what the page about clusters quotes.

// The questions and tallies are those of the fault matrix; its stages are for single nodes.
#[allow(dead_code, unused_imports)]
#[path = "../faults/support/mod.rs"]
mod support;

mod page;
#[path = "../steps/mod.rs"]
mod steps;

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use broker::{Cluster, Node};
use harness::{Program, Running, Stream};
use serde_json::Value;

use support::{LIMIT, Tally, eventually};

/// The longest that confirmed publishing may pause when a leader dies: less than the striker's own deadline, which
/// would hide a connection that hangs.
const PAUSE: Duration = Duration::from_millis(9500);

/// How long it is watched that nothing happens.
const QUIET: Duration = Duration::from_secs(2);

/// The cluster, for one test at a time; all of its nodes run.
fn cluster() -> Result<MutexGuard<'static, Cluster>> {
    static CLUSTER: OnceLock<Result<Mutex<Cluster>, String>> = OnceLock::new();
    let start = || {
        let since = Instant::now();
        let cluster = Node::builder().start_cluster(3).map_err(|error| format!("{error:#}"))?;
        println!("three nodes were one cluster after {:.1} s", since.elapsed().as_secs_f64());
        Ok(Mutex::new(cluster))
    };
    let cluster = CLUSTER.get_or_init(start).as_ref();
    let cluster = cluster.map_err(|error| anyhow!("no cluster: {error}"))?.lock();
    let cluster = cluster.unwrap_or_else(PoisonError::into_inner);
    restart_the_dead(&cluster)?;
    Ok(cluster)
}

/// All at once, because a node waits for those that were there when it died.
fn restart_the_dead(cluster: &Cluster) -> Result<()> {
    let dead: Vec<_> = cluster.iter().filter(|node| !node.is_running()).collect();
    scope(|scope| {
        let starts: Vec<_> = dead.iter().map(|node| scope.spawn(|| node.restart())).collect();
        starts.into_iter().try_for_each(|start| start.join().map_err(|_| anyhow!("a start panicked"))?)
    })
}

/// All nodes in one URL, this one first.
fn url_from(cluster: &Cluster, first: &Node) -> String {
    let url = cluster.url();
    let host = format!("127.0.0.1:{}", first.port());
    let others = url.replace(&format!("{host},"), "").replace(&format!(",{host}"), "");
    others.replace('@', &format!("@{host},"))
}

/// When each message was confirmed.
#[derive(Clone, Default)]
struct Confirms(Arc<Mutex<Vec<Instant>>>);

impl Confirms {
    fn times(&self) -> Vec<Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self) -> usize {
        self.times().len()
    }

    fn wait_for_more(&self, more: usize) -> Result<()> {
        let count = self.count() + more;
        eventually("more confirms", || Ok(self.count() >= count))
    }

    /// The longest time without a confirm since then.
    fn longest_pause(&self, since: Instant) -> Duration {
        let times = self.times();
        let pairs = times.windows(2).filter(|pair| pair[1] >= since);
        pairs.map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// A program for this kind of queue. The page has a queue of each kind too, and may leave messages in it.
fn program(path: &str, queue_type: &str, url: &str) -> Program {
    Program::new(path).args(["--url", url, "--prefix", &format!("tested-{queue_type}-")])
}

fn queue(queue_type: &str) -> String {
    format!("tested-{queue_type}-casillas")
}

/// A striker of 100 messages a second.
fn start_striker(queue_type: &str, url: &str) -> (Running, Confirms) {
    let confirms = Confirms::default();
    let noted = confirms.clone();
    let striker = program(env!("CARGO_BIN_EXE_striker"), queue_type, url).args(["--rate", "100"]);
    let striker = striker.on_line(move |stream, line| {
        if stream == Stream::Stdout && line.ends_with(" (confirmed)") {
            noted.0.lock().unwrap_or_else(PoisonError::into_inner).push(Instant::now());
        }
    });
    (striker.start(), confirms)
}

fn start_keeper(queue_type: &str, url: &str) -> Running {
    let keeper = program(env!("CARGO_BIN_EXE_keeper"), queue_type, url);
    let mut keeper = keeper.args(["--quiet", "--queue-type", queue_type]).start();
    keeper.wait_for_error_line(|line| line.ends_with(": consuming"));
    keeper
}

fn stop_striker(mut striker: Running) -> Result<Tally> {
    striker.terminate();
    Tally::of(&striker.wait(LIMIT).expect_code(0))
}

/// Ends the keeper once the queue is empty; it must have that many messages.
fn stop_keeper(
    cluster: &Cluster,
    queue_type: &str,
    mut keeper: Running,
    expected: RangeInclusive<u64>,
) -> Result<Tally> {
    eventually("an empty queue", || Ok(messages(cluster, queue_type)? == Some(0)))?;
    keeper.terminate();
    let tally = Tally::of(&keeper.wait(LIMIT).expect_code(0))?;
    ensure!(expected.contains(&tally.get("distinct")), "{expected:?} {tally:?}");
    Ok(tally)
}

/// How many messages the queue holds, if it can be asked.
fn messages(cluster: &Cluster, queue_type: &str) -> Result<Option<u64>> {
    let node = cluster.iter().find(|node| node.is_running()).context("no node runs")?;
    let queues = node.rabbitmqctl(&["--silent", "--formatter", "json", "list_queues", "name", "messages"])?;
    let queues: Value = serde_json::from_str(&queues)?;
    let name = queue(queue_type);
    let found = queues.as_array().into_iter().flatten().find(|queue| queue["name"] == *name);
    Ok(found.and_then(|queue| queue["messages"].as_u64()))
}

#[test]
fn a_quorum_queue_survives_its_leader_and_waits_for_a_majority() -> Result<()> {
    let cluster = cluster()?;
    let keeper = start_keeper("quorum", &cluster.url());
    cluster.iter().try_for_each(Node::write_out)?;
    let leader = cluster.node_of(&queue("quorum"))?;
    let followers: Vec<_> = cluster.iter().filter(|node| node.name() != leader.name()).collect();
    // One of them loses its connection with the leader, the other one is told by its node what became of it.
    let (at_leader, leaders_confirms) = start_striker("quorum", &url_from(&cluster, leader));
    let (at_follower, followers_confirms) = start_striker("quorum", &url_from(&cluster, followers[0]));
    let confirms = [&leaders_confirms, &followers_confirms];
    confirms.iter().try_for_each(|confirms| confirms.wait_for_more(100))?;

    let killed = Instant::now();
    leader.kill()?;
    confirms.iter().try_for_each(|confirms| confirms.wait_for_more(100))?;
    let pauses = confirms.map(|confirms| confirms.longest_pause(killed));

    followers[0].kill()?;
    // What was on its way may still be confirmed.
    sleep(QUIET);
    let before = confirms.map(Confirms::count);
    sleep(QUIET);
    ensure!(confirms.map(Confirms::count) == before, "one of three nodes confirmed something");
    restart_the_dead(&cluster)?;
    confirms.iter().try_for_each(|confirms| confirms.wait_for_more(100))?;

    let tallies = [stop_striker(at_leader)?, stop_striker(at_follower)?];
    let sum = |name| tallies.iter().map(|tally| tally.get(name)).sum::<u64>();
    let confirmed = sum("confirmed");
    ensure!(sum("sent") == confirmed, "{tallies:?}");
    let keeper = stop_keeper(&cluster, "quorum", keeper, confirmed..=confirmed)?;
    println!(
        "quorum queue, its leader killed: publishing paused for {} ms on a connection to that node, for {} ms on one \
         to another; a majority killed: paused until it was back; of {confirmed} confirmed messages 0 lost, {} twice, \
         {} sent again",
        pauses[0].as_millis(),
        pauses[1].as_millis(),
        keeper.get("duplicates"),
        sum("re-sent"),
    );
    // RabbitMQ 3.8 may hand a message to the dead leader and never answer: then it takes the striker's deadline.
    let limit = if leader.is_from(3, 9)? { PAUSE } else { PAUSE + shared::CALL_DEADLINE };
    ensure!(pauses.iter().all(|pause| *pause <= limit), "confirmed publishing paused for {pauses:?}");
    Ok(())
}

#[test]
fn a_classic_queue_is_gone_as_long_as_its_node_is() -> Result<()> {
    let cluster = cluster()?;
    let keeper = start_keeper("classic", &cluster.url());
    let home = cluster.node_of(&queue("classic"))?;
    let other = cluster.iter().find(|node| node.name() != home.name()).context("no other node")?;
    let (mut striker, confirms) = start_striker("classic", &url_from(&cluster, other));
    confirms.wait_for_more(100)?;

    home.kill()?;
    // Up to 3.13 the queue is as good as not there; from 4.0 on it is there, and nobody can take the message.
    let is_nacked = other.is_from(4, 0)?;
    if is_nacked {
        striker
            .wait_for_error_line(|line| line.contains("(basic.nack)") && line.ends_with("; sending again"));
    } else {
        striker.wait_for_line(|line| line.ends_with("(returned: 312 NO_ROUTE)"));
    }
    let before = confirms.count();
    sleep(QUIET);
    ensure!(confirms.count() == before, "a queue whose node is dead took something");
    restart_the_dead(&cluster)?;
    confirms.wait_for_more(100)?;
    let striker = stop_striker(striker)?;
    let confirmed = striker.get("confirmed");
    let returned = striker.get("returned");
    ensure!(striker.get("sent") == confirmed + returned, "{striker:?}");
    // What is nacked is sent again until it is taken.
    ensure!((returned == 0) == is_nacked, "{striker:?}");
    // What had arrived when the node died, unknown to the striker, came back when it was sent again.
    stop_keeper(&cluster, "classic", keeper, confirmed..=confirmed + striker.get("re-sent"))?;
    println!(
        "classic queue, its node killed: {returned} messages came back with 312 NO_ROUTE while it was away; of \
         {confirmed} confirmed messages 0 lost"
    );
    Ok(())
}
