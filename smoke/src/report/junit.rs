//! The report as JUnit's XML, which pipelines show.

use std::fmt::Write as _;
use std::time::Duration;

use super::Report;
use crate::check::{Fault, Group, Status, Verdict};
use crate::run::Record;

/// The report as text. A check that could not reach the broker is an error, one that saw something wrong a
/// failure; what is not supported or not tried is skipped.
pub(crate) fn text(report: &Report) -> String {
    let count = |kind| report.records.iter().filter(|record| kind_of(report, record) == Some(kind)).count();
    let totals = format!(
        r#"tests="{}" failures="{}" errors="{}" skipped="{}" time="{}""#,
        report.records.len(),
        count("failure"),
        count("error"),
        count("skipped"),
        seconds(report.took),
    );
    let mut xml =
        format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"smoke\" {totals}>\n");
    let timestamp = humantime::format_rfc3339_seconds(report.started).to_string();
    // Without a zone, as the schema wants it.
    let timestamp = timestamp.trim_end_matches('Z');
    line(
        &mut xml,
        1,
        &format!(
            r#"<testsuite name="smoke" timestamp="{timestamp}" hostname="{}" {totals}>"#,
            escaped(&report.url)
        ),
    );
    line(&mut xml, 2, "<properties>");
    let title = report.broker.as_ref().map_or_else(|| "unknown".to_owned(), super::Broker::title);
    for (name, value) in [
        ("url", &*report.url),
        ("broker", &title),
        ("profile", &report.profile.to_string()),
        ("run", &report.id),
    ] {
        line(&mut xml, 3, &format!(r#"<property name="{name}" value="{}"/>"#, escaped(value)));
    }
    line(&mut xml, 2, "</properties>");
    for record in &report.records {
        case(&mut xml, report, record);
    }
    line(&mut xml, 2, &format!("<system-out>{}</system-out>", escaped(&report.cleanup_line())));
    line(&mut xml, 1, "</testsuite>");
    line(&mut xml, 0, "</testsuites>");
    xml
}

/// What a check's ending is called, if it is no success.
fn kind_of(report: &Report, record: &Record) -> Option<&'static str> {
    let Verdict { status, forbidden, .. } = &record.verdict;
    match status {
        Status::Fail if record.check.group == Group::Connection => Some("error"),
        Status::Fail => Some("failure"),
        Status::Warn | Status::Unsupported if report.strict => Some("failure"),
        Status::Skipped if *forbidden => Some("failure"),
        Status::Unsupported | Status::Skipped => Some("skipped"),
        Status::Pass | Status::Warn => None,
    }
}

fn case(xml: &mut String, report: &Report, record: &Record) {
    let Record { check, verdict, times } = record;
    let head = format!(
        r#"<testcase name="{}" classname="smoke.{}" time="{}""#,
        check.name,
        check.group,
        seconds(times.iter().sum()),
    );
    let note = escaped(&verdict.note);
    let body = match (kind_of(report, record), &verdict.fault) {
        (None, _) if verdict.note.is_empty() => return line(xml, 2, &format!("{head}/>")),
        (None, _) => format!("<system-out>{note}</system-out>"),
        (Some("skipped"), _) => format!(r#"<skipped message="{note}"/>"#),
        (Some(kind), Some(Fault { expected, seen, next })) => format!(
            r#"<{kind} type="{}" message="expected {}; seen: {}">{}</{kind}>"#,
            verdict.status,
            escaped(expected),
            escaped(seen),
            escaped(next),
        ),
        (Some(kind), None) => format!(r#"<{kind} type="{}" message="{note}"/>"#, verdict.status),
    };
    line(xml, 2, &format!("{head}>"));
    line(xml, 3, &body);
    line(xml, 2, "</testcase>");
}

fn line(xml: &mut String, depth: usize, text: &str) {
    // Writing to a String cannot fail.
    let _ = writeln!(xml, "{:width$}{text}", "", width = 2 * depth);
}

fn seconds(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64())
}

/// Text as it may stand in XML, in an attribute or outside; what XML has no way to say becomes a question mark.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            c => escaped.push(c),
        }
    }
    escaped
}
