//! Lines for a person, one a check, as each ends.

use std::io::{self, IsTerminal, Write};

use super::{Report, Times};
use crate::check::{Check, Status};
use crate::judge::rounded;
use crate::run::{Progress, Record};

/// Prints the table, and in between what is under way, where somebody can see it.
pub(crate) struct Table {
    /// Whether lines go to standard output; without them only the progress is shown.
    rows: bool,
    colour: bool,
    /// Whether the last line is one of progress, to be written over.
    progress: bool,
    terminal: bool,
}

impl Table {
    /// `rows`: whether to print lines at all, or only the progress.
    pub(crate) fn new(rows: bool) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let terminal = io::stderr().is_terminal();
        Self { rows, colour: io::stdout().is_terminal() && !plain, progress: false, terminal }
    }

    /// The line above all others.
    pub(crate) fn head(&mut self, url: &str) {
        for line in head(url) {
            self.print(&line);
        }
    }

    /// The lines below all others.
    pub(crate) fn foot(&mut self, report: &Report) {
        self.clear();
        for line in foot(report) {
            self.print(&line);
        }
    }

    /// Prints a line. When nobody reads any more, the checks go on all the same: they have to be cleaned up.
    fn print(&mut self, line: &str) {
        self.rows = self.rows && print(line).is_ok();
    }

    /// Takes the line of progress away.
    fn clear(&mut self) {
        if std::mem::take(&mut self.progress) {
            // A closed standard error is no reason to stop.
            let _ = write!(io::stderr(), "\r\x1b[2K");
        }
    }
}

impl Progress for Table {
    fn begins(&mut self, check: &Check, ended: usize, all: usize) {
        if self.terminal {
            self.clear();
            let _ = write!(io::stderr(), "[{ended}/{all}] {}: {}", check.name, check.about);
            let _ = io::stderr().flush();
            self.progress = true;
        }
    }

    fn ended(&mut self, record: &Record) {
        self.clear();
        self.print(&row(record, self.colour));
    }
}

/// Prints a line to standard output, at once.
pub(crate) fn print(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush())
}

/// The lines above all others.
fn head(url: &str) -> [String; 2] {
    [
        format!("smoke {} on {url}", env!("CARGO_PKG_VERSION")),
        format!("{:<20} {:<11} {:>9}  NOTE", "CHECK", "STATUS", "MS"),
    ]
}

/// A check's line.
pub(crate) fn row(record: &Record, colour: bool) -> String {
    let Record { check, verdict, times } = record;
    let distribution = Times::of(times);
    let time = distribution
        .as_ref()
        .map_or("-".to_owned(), |times| format!("{:.0}", super::milliseconds(times.p50)));
    let mut note = verdict.note.clone();
    if let Some(times) = distribution.filter(|times| times.count > 1) {
        let Times { count, least, p50, p90, p99, most } = times;
        let all = [("least", least), ("p50", p50), ("p90", p90), ("p99", p99), ("most", most)]
            .map(|(name, time)| format!("{name} {:.1}", super::milliseconds(time)));
        note = format!("{count} times: {}; {note}", all.join(", "));
    }
    let status = format!("{:<11}", verdict.status);
    let status = if colour { painted(verdict.status, &status) } else { status };
    format!("{:<20} {status} {time:>9}  {note}", check.name).trim_end().to_owned()
}

fn painted(status: Status, text: &str) -> String {
    let colour = match status {
        Status::Pass => 32,
        Status::Warn | Status::Unsupported => 33,
        Status::Skipped => 36,
        Status::Fail => 31,
    };
    format!("\x1b[{colour}m{text}\x1b[0m")
}

/// The lines at the end.
pub(crate) fn foot(report: &Report) -> Vec<String> {
    let broker = report.broker.as_ref().map(|broker| format!(" on {}", broker.title())).unwrap_or_default();
    vec![
        format!("cleanup: {}", report.cleanup_line()),
        format!("{}: {} in {}{broker}", report.outcome().word(), report.counts(), rounded(report.took)),
    ]
}

/// The whole table, for a file.
pub(crate) fn whole(report: &Report) -> String {
    let mut lines = head(&report.url).to_vec();
    lines.extend(report.records.iter().map(|record| row(record, false)));
    lines.extend(foot(report));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::tests::report;

    #[test]
    fn a_line_has_name_status_time_and_note() {
        let mut report = report(&[Status::Warn]);
        assert_eq!(
            row(&report.records[0], false),
            "tcp                  warn                0  note on warn"
        );
        assert!(row(&report.records[0], true).contains("\x1b[33mwarn       \x1b[0m"));
        report.records[0].times = [1, 2, 3].map(Duration::from_millis).to_vec();
        let line = row(&report.records[0], false);
        assert!(line.contains("2  3 times: least 1.0, p50 2.0, p90 3.0, p99 3.0, most 3.0; note"), "{line}");
    }

    #[test]
    fn the_end_says_what_came_of_it() {
        let mut report = report(&[]);
        report.cleanup.left.push("smoke.x.y".to_owned());
        let end = foot(&report);
        assert_eq!(end[0], "cleanup: 1 of 7 names are left: smoke.x.y");
        let all = report.records.len();
        assert_eq!(end[1], format!("failed: {all} pass in 4.3 s on RabbitMQ 3.10.8"));
    }
}
