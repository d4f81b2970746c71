//! The report as one JSON object; `schema/report.v1.json` says what is in it.

use serde_json::{Map, Value, json};

use super::{Report, Times, milliseconds};
use crate::args::Output;
use crate::check::Status;
use crate::run::Record;

/// Changes when a reader of the last version would misunderstand the next one.
const SCHEMA_VERSION: u32 = 1;

/// The report as text.
pub(crate) fn text(report: &Report) -> String {
    format!("{:#}\n", value(report))
}

fn value(report: &Report) -> Value {
    let summary: Map<_, _> =
        Status::ALL.map(|status| (status.to_string(), json!(report.count(status)))).into_iter().collect();
    json!({
        "schema_version": SCHEMA_VERSION,
        "smoke_version": env!("CARGO_PKG_VERSION"),
        "started": humantime::format_rfc3339_seconds(report.started).to_string(),
        "duration_ms": milliseconds(report.took),
        "url": report.url,
        "broker": report.broker.as_ref().map(|broker| json!({
            "product": broker.product,
            "version": broker.version,
            "cluster": broker.cluster,
        })),
        "profile": report.profile.to_string(),
        "strict": report.strict,
        "run": report.id,
        "outcome": report.outcome().word(),
        "exit_code": report.exit_code(Output::Json),
        "summary": summary,
        "checks": report.records.iter().map(check).collect::<Vec<_>>(),
        "cleanup": {
            "names": report.cleanup.made,
            "left": report.cleanup.left,
            "problem": report.cleanup.problem,
        },
    })
}

fn check(record: &Record) -> Value {
    let Record { check, verdict, times } = record;
    let times = Times::of(times);
    json!({
        "name": check.name,
        "group": check.group.to_string(),
        "about": check.about,
        "status": verdict.status.to_string(),
        "missing_permission": verdict.forbidden,
        "ms": times.as_ref().map(|times| milliseconds(times.p50)),
        "times": times.map(|times| json!({
            "count": times.count,
            "min_ms": milliseconds(times.least),
            "p50_ms": milliseconds(times.p50),
            "p90_ms": milliseconds(times.p90),
            "p99_ms": milliseconds(times.p99),
            "max_ms": milliseconds(times.most),
        })),
        "note": verdict.note,
        "fault": verdict.fault.as_ref().map(|fault| json!({
            "expected": fault.expected,
            "seen": fault.seen,
            "next": fault.next,
        })),
    })
}
