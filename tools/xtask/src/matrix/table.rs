//! The table: a column for each version, a line for each crate.

use std::time::SystemTime;

use super::record::{Cell, Record};

/// As Markdown.
pub(crate) fn table(records: &[Record]) -> String {
    let mut whats: Vec<&str> = Vec::new();
    for cell in records.iter().flat_map(|record| &record.cells) {
        if !whats.contains(&cell.what.as_str()) {
            whats.push(&cell.what);
        }
    }
    let line = |first: &str, cells: &mut dyn Iterator<Item = String>| {
        format!("| {first} | {} |", cells.collect::<Vec<_>>().join(" | "))
    };
    let mut lines = vec![
        line("", &mut records.iter().map(|record| record.title.clone())),
        format!("|---|{}", "---|".repeat(records.len())),
    ];
    for what in whats {
        let found = |record: &Record| {
            record.cells.iter().find(|cell| cell.what == what).map_or_else(String::new, text)
        };
        lines.push(line(what, &mut records.iter().map(found)));
    }
    lines.push(line("from", &mut records.iter().map(|record| record.system.clone())));
    lines.push(line("run on", &mut records.iter().map(|record| record.date.clone())));
    lines.push(line("took", &mut records.iter().map(|record| minutes(record.seconds))));
    lines.join("\n")
}

fn text(cell: &Cell) -> String {
    match &cell.failed[..] {
        [] => cell.passed.clone(),
        failed => format!("**failed:** `{}`; {}", failed.join("`, `"), cell.passed),
    }
}

fn minutes(seconds: u64) -> String {
    format!("{}:{:02} min", seconds / 60, seconds % 60)
}

/// The day, in UTC: `2026-11-26`.
pub(crate) fn date(time: SystemTime) -> String {
    let stamp = humantime::format_rfc3339_seconds(time).to_string();
    stamp.split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_column_for_each_version_and_failures_by_name() {
        let cell = |what: &str, failed: &[&str]| Cell {
            what: what.to_owned(),
            passed: "3 passed".to_owned(),
            failed: failed.iter().map(ToString::to_string).collect(),
        };
        let record = |title: &str, cells| Record {
            title: title.to_owned(),
            system: "Debian 11".to_owned(),
            date: date(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400)),
            seconds: 61,
            cells,
        };
        let records = [
            record("3.8.9", vec![cell("hello", &[]), cell("rpc", &["a", "b"])]),
            record("4.3.6, strict", vec![cell("hello", &[])]),
        ];
        assert_eq!(
            table(&records),
            "|  | 3.8.9 | 4.3.6, strict |\n\
             |---|---|---|\n\
             | hello | 3 passed | 3 passed |\n\
             | rpc | **failed:** `a`, `b`; 3 passed |  |\n\
             | from | Debian 11 | Debian 11 |\n\
             | run on | 1970-01-02 | 1970-01-02 |\n\
             | took | 1:01 min | 1:01 min |"
        );
    }
}
