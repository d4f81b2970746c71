//! Many runs in one table: medians, their spread, and the ratio of those who ran side by side.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::turn::Turn;

/// One run.
pub(crate) struct Run {
    pub(crate) workload: String,
    pub(crate) contestant: String,
    pub(crate) round: usize,
    pub(crate) messages: usize,
    pub(crate) turn: Turn,
}

impl Run {
    /// Messages in a second.
    fn rate(&self) -> f64 {
        self.messages as f64 / self.turn.report.seconds
    }

    /// Microseconds of the contestant's processor time for a message.
    fn cpu(&self) -> f64 {
        self.turn.report.cpu_seconds * 1e6 / self.messages as f64
    }

    pub(crate) fn json(&self) -> Value {
        let (report, faults) = (&self.turn.report, &self.turn.faults);
        json!({
            "workload": self.workload,
            "contestant": self.contestant,
            "round": self.round,
            "messages": self.messages,
            "seconds": report.seconds,
            "messages_per_second": self.rate().round(),
            "cpu_us_per_message": (self.cpu() * 10.0).round() / 10.0,
            "lost": faults.lost,
            "doubled": faults.doubled,
            "foreign": faults.foreign,
            "wrong_outcomes": report.wrong,
        })
    }
}

/// The runs as a table in Markdown: a line for each workload and contestant, in the order in which they ran.
pub(crate) fn table(runs: &[Run]) -> String {
    let mut contestants: Vec<&str> = Vec::new();
    let mut workloads: Vec<&str> = Vec::new();
    for run in runs {
        if !contestants.contains(&&*run.contestant) {
            contestants.push(&run.contestant);
        }
        if !workloads.contains(&&*run.workload) {
            workloads.push(&run.workload);
        }
    }
    let mut table = String::from("| workload |");
    for contestant in &contestants[1.min(contestants.len())..] {
        let _ = write!(table, " {} / {contestant} |", contestants[0]);
    }
    for contestant in &contestants {
        let _ = write!(table, " {contestant}: messages/s | CPU µs |");
    }
    table.push_str("\n|---|");
    table.push_str(&"---|".repeat(3 * contestants.len() - 1));
    for workload in workloads {
        let _ = write!(table, "\n| {workload} |");
        let of = |contestant: &str| -> Vec<&Run> {
            runs.iter().filter(|run| run.workload == workload && run.contestant == contestant).collect()
        };
        let ours = of(contestants[0]);
        for contestant in &contestants[1..] {
            table.push_str(&ratio(&ours, &of(contestant)));
        }
        for contestant in &contestants {
            table.push_str(&cells(&of(contestant)));
        }
    }
    table
}

/// How much faster one was than another in the rounds that both did.
fn ratio(ours: &[&Run], others: &[&Run]) -> String {
    let ratios = others.iter().filter_map(|other| {
        let our = ours.iter().find(|our| our.round == other.round)?;
        Some(our.rate() / other.rate())
    });
    match Spread::of(ratios) {
        Some(Spread { low, median, high }) => format!(" **{median:.2}** ({low:.2}–{high:.2}) |"),
        None => " – |".to_owned(),
    }
}

/// The rate and the processor time of one contestant's runs of one workload, with a word about wrong ones.
fn cells(runs: &[&Run]) -> String {
    let sum = |count: fn(&Run) -> usize| runs.iter().map(|run| count(run)).sum::<usize>();
    let (Some(rate), Some(cpu)) =
        (Spread::of(runs.iter().map(|run| run.rate())), Spread::of(runs.iter().map(|run| run.cpu())))
    else {
        return " – | – |".to_owned();
    };
    let (lost, doubled) = (sum(|run| run.turn.faults.lost), sum(|run| run.turn.faults.doubled));
    let (foreign, wrong) = (sum(|run| run.turn.faults.foreign), sum(|run| run.turn.report.wrong));
    let mut words = String::new();
    for (count, word) in
        [(lost, "lost"), (doubled, "doubled"), (foreign, "not settled"), (wrong, "wrong outcomes")]
    {
        if count > 0 {
            let _ = write!(words, ", {count} {word}");
        }
    }
    format!(" {:.0} ({:.0}–{:.0}){words} | {:.1} |", rate.median, rate.low, rate.high, cpu.median)
}

/// Lowest, middle and highest of some numbers.
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    pub(crate) fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut numbers: Vec<_> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let (low, high) = (*numbers.first()?, *numbers.last()?);
        Some(Self { low, median: numbers[numbers.len() / 2], high })
    }
}
