//! What a contestant says about its own run: one line of JSON on standard output.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use serde_json::{Value, json};

use crate::seen::{Faults, Seen};

/// A contestant's own account. Whether its messages arrived, others count.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// From the first message to the end of the last connection.
    pub(crate) seconds: f64,
    /// Of user and system together, in the same time.
    pub(crate) cpu_seconds: f64,
    /// Messages whose outcome was told wrongly, or replies that answer another question.
    pub(crate) wrong: usize,
    /// Different messages that it got.
    pub(crate) distinct: usize,
    /// Copies too many among those that it got.
    pub(crate) doubled: usize,
}

/// Started when the work begins.
pub(crate) struct Watch {
    started: Instant,
    cpu: Duration,
}

impl Watch {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self { started: Instant::now(), cpu: cpu_time()? })
    }

    /// The account of a run that ends now.
    pub(crate) fn stop(&self, wrong: usize, got: Option<&Seen>) -> Result<Report> {
        let (seconds, cpu) = (self.started.elapsed().as_secs_f64(), cpu_time()?.saturating_sub(self.cpu));
        let Faults { doubled, foreign, .. } = got.map(|got| got.faults(|_| true)).unwrap_or_default();
        let distinct = got.map_or(0, Seen::distinct);
        Ok(Report { seconds, cpu_seconds: cpu.as_secs_f64(), wrong: wrong + foreign, distinct, doubled })
    }
}

impl Report {
    pub(crate) fn json(&self) -> Value {
        let Self { seconds, cpu_seconds, wrong, distinct, doubled } = self;
        json!({"seconds": seconds, "cpu_seconds": cpu_seconds, "wrong": wrong, "distinct": distinct, "doubled": doubled})
    }

    /// Reads the last line that a contestant printed.
    pub(crate) fn read(output: &str) -> Result<Self> {
        let line = output.lines().last().context("it printed nothing")?;
        let report: Value = serde_json::from_str(line).with_context(|| format!("it printed '{line}'"))?;
        let time = |name| report[name].as_f64().with_context(|| format!("'{name}' is missing in '{line}'"));
        // Absent where it has nothing to tell.
        let count = |name: &str| report[name].as_u64().unwrap_or(0) as usize;
        Ok(Self {
            seconds: time("seconds")?,
            cpu_seconds: time("cpu_seconds")?,
            wrong: count("wrong"),
            distinct: count("distinct"),
            doubled: count("doubled"),
        })
    }
}

/// The processor time that this process has used.
fn cpu_time() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("cannot ask for the processor time")?;
    let duration =
        |time: TimeVal| Duration::from_micros(time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64);
    Ok(duration(usage.user_time()) + duration(usage.system_time()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_can_be_read_back_and_nonsense_is_shown() {
        let report = Report { seconds: 1.5, cpu_seconds: 0.25, wrong: 1, distinct: 2, doubled: 3 };
        assert_eq!(Report::read(&format!("hello\n{}\n", report.json())).unwrap(), report);
        assert!(Report::read("").is_err());
        assert!(format!("{:#}", Report::read("oops").unwrap_err()).contains("oops"));
        assert!(Report::read(r#"{"seconds":1}"#).is_err());
    }
}
