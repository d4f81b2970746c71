//! What the workspace's programs take as a whole: the start of `sender`, the memory of `keeper`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shared::{message_id, say};

use crate::contestant::Contestant;
use crate::table::Spread;

/// How often a program is started to measure its time.
const STARTS: usize = 20;

/// How often it is started to see its memory, which slows it down.
const LOOKS: usize = 5;

/// The pause between two looks at a process.
const LOOK: Duration = Duration::from_micros(100);

/// How long a keeper without work is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(3);

/// How often the memory of a busy keeper is read.
const SAMPLE: Duration = Duration::from_millis(250);

/// A measure, in its unit.
pub(crate) struct Line {
    what: String,
    unit: &'static str,
    spread: Spread,
}

/// The time and memory of a process that sends one message, for each contestant.
pub(crate) fn starts(url: &str, contestants: &[Contestant]) -> Result<Vec<Line>> {
    let sender = program("sender")?;
    let queue = format!("bench.start.{}.", message_id());
    let command = |contestant: &Contestant| -> Result<Command> {
        let mut command = match contestant {
            // The program itself. Its queue is `hello`, behind the prefix.
            Contestant::Shared => Command::new(&sender),
            other => other.command("one-shot")?,
        };
        if *contestant != Contestant::Shared {
            command.args(["1", &format!("{queue}hello")]);
        }
        command.env("AMQP_URL", url).env("AMQP_PREFIX", &queue);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    };
    let mut lines = Vec::new();
    let (mut times, mut memory) = (vec![Vec::new(); contestants.len()], vec![Vec::new(); contestants.len()]);
    for turn in 0..STARTS + LOOKS {
        for place in 0..contestants.len() {
            let place = (place + turn) % contestants.len();
            let (start, mut process) = (Instant::now(), command(&contestants[place])?.spawn()?);
            let peak = if turn < STARTS { 0.0 } else { peak_memory(&mut process)? };
            let status = process.wait()?;
            let ms = start.elapsed().as_secs_f64() * 1000.0;
            ensure!(status.success(), "{}: one-shot: {status}", contestants[place]);
            if turn < STARTS { times[place].push(ms) } else { memory[place].push(peak) }
        }
    }
    for (contestant, (times, memory)) in contestants.iter().zip(times.into_iter().zip(memory)) {
        say!("{}", json!({"start_of": contestant.to_string(), "ms": times, "peak_mib": memory}));
        for (unit, numbers) in [("ms", times), ("MiB", memory)] {
            let what = format!("a process that sends one message: {contestant}");
            lines.extend(Spread::of(numbers).map(|spread| Line { what, unit, spread }));
        }
    }
    Ok(lines)
}

/// The memory of `keeper`, without work and over `messages` from `striker`.
pub(crate) fn memory(url: &str, messages: usize) -> Result<Vec<Line>> {
    let prefix = format!("bench.memory.{}.", message_id());
    let count = messages.to_string();
    let start = |name: &str, args: &[&str]| -> Result<Process> {
        let mut command = Command::new(program(name)?);
        command.args(args).args(["--count", &count, "--report", "json"]);
        command.env("AMQP_URL", url).env("AMQP_PREFIX", &prefix).env("RUST_LOG", "off");
        Ok(Process(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?))
    };
    let keeper = start("keeper", &["--prefetch", "1000", "--queue-type", "classic"])?;
    thread::sleep(IDLE);
    let idle = resident(keeper.0.id())?.context("the keeper has ended")?;
    let mut striker = start("striker", &["--rate", "0", "--in-flight", "1000", "--size", "100"])?;
    let mut samples = Vec::new();
    while striker.0.try_wait()?.is_none() {
        thread::sleep(SAMPLE);
        samples.extend(resident(keeper.0.id())?);
    }
    let quarter = samples.len() / 4;
    let (early, late) = (
        &samples[..quarter.max(1).min(samples.len())],
        &samples[samples.len() - quarter.max(1).min(samples.len())..],
    );
    let lines = [
        ("keeper without work".to_owned(), vec![idle]),
        (format!("keeper in the first quarter of {messages} messages"), early.to_vec()),
        (format!("keeper in the last quarter of {messages} messages"), late.to_vec()),
    ];
    say!("{}", json!({"keeper_idle_mib": idle, "keeper_busy_mib": samples}));
    let line = |(what, numbers)| Spread::of(numbers).map(|spread| Line { what, unit: "MiB", spread });
    Ok(lines.into_iter().filter_map(line).collect())
}

/// A process that ends with this value.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program of this workspace, built like this one.
fn program(name: &str) -> Result<PathBuf> {
    let own = env::current_exe().context("cannot find this program")?;
    let path = own.with_file_name(name);
    ensure!(
        path.is_file(),
        "there is no {}: build it first: cargo build --release -p hello -p striker-keeper",
        path.display()
    );
    Ok(path)
}

/// The most that a process has held, in MiB, as it was last seen before it ended.
fn peak_memory(process: &mut Child) -> Result<f64> {
    let mut peak = 0.0;
    while process.try_wait()?.is_none() {
        peak = status(process.id(), "VmHWM:")?.unwrap_or(peak);
        thread::sleep(LOOK);
    }
    Ok(peak)
}

/// What a process holds now, in MiB. `None`: it has ended.
fn resident(id: u32) -> Result<Option<f64>> {
    status(id, "VmRSS:")
}

fn status(id: u32, name: &str) -> Result<Option<f64>> {
    let path = format!("/proc/{id}/status");
    ensure!(
        Path::new("/proc/self/status").exists(),
        "memory is measured where there is a /proc, as on Linux"
    );
    let Ok(text) = fs::read_to_string(path) else { return Ok(None) };
    let kib = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Ok(kib.map(|kib| kib / 1024.0))
}

/// The measures as a table in Markdown.
pub(crate) fn table(lines: &[Line]) -> String {
    let mut table = "| what | median (lowest–highest) |\n|---|---|".to_owned();
    for Line { what, unit, spread: Spread { low, median, high } } in lines {
        table += &format!("\n| {what} | {median:.1} {unit} ({low:.1}–{high:.1}) |");
    }
    table
}
