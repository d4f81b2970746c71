//! What a run is reported as: one summary, several forms.

pub(crate) mod json;
pub(crate) mod junit;
pub(crate) mod nagios;
pub(crate) mod table;

use std::time::{Duration, SystemTime};

use crate::args::Output;
use crate::check::{Group, Profile, Status};
use crate::names::Cleanup;
use crate::run::{Ended, Record};
use crate::start_frame::Broker;

/// All that there is to say about a run. Never a password.
pub(crate) struct Report {
    pub(crate) started: SystemTime,
    pub(crate) took: Duration,
    /// The broker's address, without the password.
    pub(crate) url: String,
    pub(crate) broker: Option<Broker>,
    pub(crate) profile: Profile,
    pub(crate) strict: bool,
    /// The random word in all names of the run.
    pub(crate) id: String,
    pub(crate) records: Vec<Record>,
    pub(crate) ended: Ended,
    pub(crate) cleanup: Cleanup,
}

/// The answer in a word.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Outcome {
    /// All passed; with `--strict` without a warning.
    Passed,
    /// A check failed, lacked a permission, or left something behind.
    Failed,
    /// There was no connection or no login.
    Unreachable,
    /// The deadline came first.
    Deadline,
    /// A signal came first.
    Interrupted,
}

impl Outcome {
    /// The word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Unreachable => "unreachable",
            Self::Deadline => "deadline",
            Self::Interrupted => "interrupted",
        }
    }

    fn exit_code(self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Failed => 1,
            Self::Unreachable => 2,
            Self::Deadline => 3,
            Self::Interrupted => 130,
        }
    }
}

impl Report {
    /// How many checks ended so.
    pub(crate) fn count(&self, status: Status) -> usize {
        self.records.iter().filter(|record| record.verdict.status == status).count()
    }

    /// The answer.
    pub(crate) fn outcome(&self) -> Outcome {
        let unreachable = self
            .records
            .iter()
            .any(|record| record.verdict.status == Status::Fail && record.check.group == Group::Connection);
        match self.ended {
            Ended::Interrupted => Outcome::Interrupted,
            // A check that a deadline ends has failed for that alone.
            Ended::Deadline => Outcome::Deadline,
            Ended::Completely if unreachable => Outcome::Unreachable,
            Ended::Completely if self.has_failed() => Outcome::Failed,
            Ended::Completely => Outcome::Passed,
        }
    }

    fn has_failed(&self) -> bool {
        let strictly = |status| self.strict && matches!(status, Status::Warn | Status::Unsupported);
        let failed = self.records.iter().any(|record| {
            let status = record.verdict.status;
            status == Status::Fail || record.verdict.forbidden || strictly(status)
        });
        failed || !self.cleanup.left.is_empty() || self.cleanup.problem.is_some()
    }

    /// What the process is to end with.
    pub(crate) fn exit_code(&self, output: Output) -> u8 {
        match output {
            Output::Nagios => nagios::state(self).exit_code(),
            _ => self.outcome().exit_code(),
        }
    }

    /// What became of the names, in a line.
    pub(crate) fn cleanup_line(&self) -> String {
        let Cleanup { made, left, problem } = &self.cleanup;
        match problem {
            Some(problem) => format!("{made} names used; not known whether all are gone: {problem}"),
            None if left.is_empty() => format!("{made} names used, none left"),
            None => format!("{} of {made} names are left: {}", left.len(), left.join(", ")),
        }
    }

    /// The counts of all statuses that occur, such as `40 pass, 1 warn`.
    pub(crate) fn counts(&self) -> String {
        let counts = Status::ALL.map(|status| (self.count(status), status));
        let counts: Vec<_> = counts
            .into_iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, status)| format!("{count} {status}"))
            .collect();
        counts.join(", ")
    }
}

/// The distribution of a check's times.
#[derive(Debug, PartialEq)]
pub(crate) struct Times {
    pub(crate) count: usize,
    pub(crate) least: Duration,
    pub(crate) p50: Duration,
    pub(crate) p90: Duration,
    pub(crate) p99: Duration,
    pub(crate) most: Duration,
}

impl Times {
    /// The distribution; `None` if there is no time.
    pub(crate) fn of(times: &[Duration]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        // The smallest time that so many percent of all are not above.
        let percentile = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100);
            sorted.get(rank.saturating_sub(1)).copied()
        };
        Some(Self {
            count: sorted.len(),
            least: *sorted.first()?,
            p50: percentile(50)?,
            p90: percentile(90)?,
            p99: percentile(99)?,
            most: *sorted.last()?,
        })
    }
}

/// Milliseconds with three digits behind the point.
pub(crate) fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1000.0
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::check::{Fault, Verdict};
    use crate::checks;

    /// A report in which each of the first checks of all ended as told, and the others passed.
    pub(crate) fn report(statuses: &[Status]) -> Report {
        let records = checks::all().enumerate().map(|(at, check)| {
            let status = statuses.get(at).copied().unwrap_or(Status::Pass);
            let verdict = match status {
                Status::Fail => Verdict::failed(Fault {
                    expected: "a <b> & \"c\"".to_owned(),
                    seen: "'d' | e\u{1}".to_owned(),
                    next: "f".to_owned(),
                }),
                _ => Verdict::new(status, format!("note on {status}")),
            };
            Record { check, verdict, times: vec![Duration::from_millis(at as u64)] }
        });
        Report {
            started: SystemTime::UNIX_EPOCH,
            took: Duration::from_millis(4321),
            url: "amqp://guest@localhost:5672/%2F".to_owned(),
            broker: Some(Broker {
                product: Some("RabbitMQ".to_owned()),
                version: Some("3.10.8".to_owned()),
                ..Broker::default()
            }),
            profile: Profile::Full,
            strict: false,
            id: "abcdefgh".to_owned(),
            records: records.collect(),
            ended: Ended::Completely,
            cleanup: Cleanup { made: 7, left: Vec::new(), problem: None },
        }
    }

    #[test]
    fn the_exit_code_tells_what_came_of_it() {
        use Status::{Fail, Pass, Skipped, Unsupported, Warn};
        let code = |statuses: &[Status], change: fn(&mut Report)| {
            let mut report = report(statuses);
            change(&mut report);
            report.exit_code(Output::Table)
        };
        let connected = [Pass; 7];
        let after = |status| [&connected[..], &[status]].concat();
        for (statuses, change, expected) in [
            (vec![], (|_| {}) as fn(&mut Report), 0),
            (after(Fail), |_| {}, 1),
            (after(Warn), |_| {}, 0),
            (after(Unsupported), |_| {}, 0),
            (after(Skipped), |_| {}, 0),
            (after(Warn), |report| report.strict = true, 1),
            (after(Unsupported), |report| report.strict = true, 1),
            (after(Skipped), |report| report.records[7].verdict.forbidden = true, 1),
            (vec![], |report| report.cleanup.left.push("smoke.x".to_owned()), 1),
            (vec![Fail], |_| {}, 2),
            (vec![Pass, Pass, Pass, Fail], |_| {}, 2),
            (vec![Pass, Pass, Pass, Pass, Pass, Fail], |_| {}, 1),
            (after(Fail), |report| report.ended = Ended::Deadline, 3),
            (vec![], |report| report.ended = Ended::Interrupted, 130),
        ] {
            assert_eq!(code(&statuses, change), expected, "{statuses:?}");
        }
    }

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        let found = Times::of(&times).unwrap();
        let [least, p50, p90, p99, most] = [1, 100, 180, 198, 200].map(Duration::from_millis);
        assert_eq!(found, Times { count: 200, least, p50, p90, p99, most });
        let one = Duration::from_millis(5);
        assert_eq!(Times::of(&[one]).unwrap().p50, one);
        assert_eq!(Times::of(&[]), None);
    }
}
