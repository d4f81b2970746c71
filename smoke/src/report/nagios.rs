//! The report as a Nagios plugin gives it: a line of status with performance data, and lines about the rest.

use super::{Outcome, Report, milliseconds};
use crate::check::Status;
use crate::report::Times;

/// Nagios' states.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum State {
    Ok,
    Warning,
    Critical,
    Unknown,
}

impl State {
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Warning => 1,
            Self::Critical => 2,
            Self::Unknown => 3,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Warning => "WARNING",
            Self::Critical => "CRITICAL",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The broker's state. A missing permission says nothing about the broker, nor does an interrupted run; a
/// deadline that came too soon says that it is too slow.
pub(crate) fn state(report: &Report) -> State {
    let has = |status| report.count(status) > 0;
    let forbidden = report.records.iter().any(|record| record.verdict.forbidden);
    match report.outcome() {
        Outcome::Interrupted => State::Unknown,
        Outcome::Unreachable | Outcome::Deadline => State::Critical,
        Outcome::Failed | Outcome::Passed if has(Status::Fail) => State::Critical,
        Outcome::Failed | Outcome::Passed if forbidden => State::Unknown,
        Outcome::Failed => State::Warning,
        Outcome::Passed if has(Status::Warn) || report.cleanup.problem.is_some() => State::Warning,
        Outcome::Passed => State::Ok,
    }
}

/// The report as text.
pub(crate) fn text(report: &Report) -> String {
    let broker = report.broker.as_ref().map(|broker| format!(" on {}", broker.title())).unwrap_or_default();
    let mut data = vec![format!("time={:.3}s", report.took.as_secs_f64())];
    for status in Status::ALL {
        data.push(format!("{status}={}", report.count(status)));
    }
    for record in &report.records {
        if let Some(times) = Times::of(&record.times) {
            data.push(format!("'{}'={}ms", record.check.name, milliseconds(times.p50)));
        }
    }
    let first = format!("{}{broker}", report.counts());
    let mut lines = vec![format!("SMOKE {} - {} | {}", state(report).word(), plain(&first), data.join(" "))];
    for record in &report.records {
        let verdict = &record.verdict;
        if !matches!(verdict.status, Status::Pass) {
            lines.push(format!("{}: {}: {}", verdict.status, record.check.name, plain(&verdict.note)));
        }
    }
    lines.push(format!("cleanup: {}", plain(&report.cleanup_line())));
    lines.join("\n") + "\n"
}

/// A bar would begin performance data.
fn plain(text: &str) -> String {
    text.replace('|', "/").replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    #[test]
    fn the_state_is_the_worst_that_was_seen() {
        use Status::{Fail, Pass, Skipped, Unsupported, Warn};
        for (status, state_word) in
            [(Pass, "OK"), (Warn, "WARNING"), (Unsupported, "OK"), (Skipped, "OK"), (Fail, "CRITICAL")]
        {
            let statuses = [&[Pass; 7][..], &[status]].concat();
            assert_eq!(state(&report(&statuses)).word(), state_word, "{status}");
        }
        let mut forbidden = report(&[Pass, Skipped]);
        forbidden.records[1].verdict.forbidden = true;
        assert_eq!(state(&forbidden), State::Unknown);
        assert_eq!(state(&report(&[Fail])).exit_code(), 2);
    }

    #[test]
    fn one_line_with_data_and_one_for_each_that_did_not_pass() {
        let text = text(&report(&[Status::Fail, Status::Warn]));
        let lines: Vec<_> = text.lines().collect();
        let (status, data) = lines[0].split_once(" | ").unwrap();
        assert!(
            status.starts_with("SMOKE CRITICAL - ") && status.ends_with("1 fail on RabbitMQ 3.10.8"),
            "{status}"
        );
        assert!(data.starts_with("time=4.321s pass=") && data.contains(" 'tls'=1ms"), "{data}");
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("fail: tcp: ") && !lines[1].contains('|'), "{}", lines[1]);
    }
}
