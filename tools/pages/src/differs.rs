//! What differs from run to run and is not compared: ids, times, rates, and what a machine is called. Nothing else.

use std::sync::LazyLock;

use regex::Regex;

/// Patterns, and what stands in their place when lines are compared.
pub const DIFFERS: &[(&str, &str)] = &[
    // Ids.
    (r"amq\.gen-[A-Za-z0-9_-]{22}", "amq.gen-ID"),
    (r"\b(declare|tx_orders|tx_invoices|smoke)([.-])[A-Za-z0-9]{8}\b", "${1}${2}ID"),
    (r#"<<"[A-Za-z0-9]{32}">>"#, "<<ID>>"),
    // Times.
    (r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,}(Z|\+00:00)", "TIME"),
    (r"came after [0-9]+ ms", "came after TIME"),
    (r"(attempt [0-9]+/[0-9]+) in [0-9.]+(ms|s)\b", "$1 in TIME"),
    (r"(longest outage) [0-9][0-9a-zµ. ]*", "$1 TIME"),
    (r"(failed attempts) in [0-9.]+(ms|s)\b", "$1 in TIME"),
    (r"^([a-z-]+ +(?:pass|warn|skipped)) +[0-9]+(  |$)", "$1 TIME$2"),
    (r"[0-9]+ times: least .*?;", "TIMES;"),
    (r"(connected|there and back) in [0-9]+ ms", "$1 in TIME"),
    (r"[0-9]+ ms (instead of)", "TIME $1"),
    (r" in [0-9.]+ (ms|s) on RabbitMQ", " in TIME on RabbitMQ"),
    (r"\btime=[0-9.]+s", "TIME"),
    (r"'=[0-9.]+ms", "'=TIME"),
    (r"Uptime \(seconds\): [0-9]+", "Uptime TIME"),
    // Rates.
    (r"[0-9]+ messages per second(, [0-9.]+ ×)?", "RATE"),
    (r"^([a-z][a-z0-9, ]+?) +[0-9]+ +([0-9]+ of [0-9]+)$", "$1 RATE $2"),
    // What a machine is called, and its ports and processes.
    (r"127\.0\.0\.1:[0-9]{4,5}", "ADDRESS"),
    (r"localhost:[0-9]{4,5}", "ADDRESS"),
    (r"\brabbit@[A-Za-z0-9-]+", "NODE"),
    (r"ports [0-9, ]+ on node", "PORTS on node"),
    (r"^(rabbitmqctl\(\) \{ env -i ).*", "$1"),
];

static PATTERNS: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let compiled = DIFFERS.iter().map(|(pattern, name)| (Regex::new(pattern), *name));
    compiled.map(|(pattern, name)| (pattern.expect("a pattern of the table above"), name)).collect()
});

/// Whether two lines are the same, apart from what differs from run to run.
pub fn same_line(page: &str, seen: &str) -> bool {
    page == seen || without(page) == without(seen)
}

fn without(line: &str) -> String {
    PATTERNS
        .iter()
        .fold(line.to_owned(), |line, (pattern, name)| pattern.replace_all(&line, *name).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_times_and_rates_differ_and_nothing_else() {
        for (page, seen, same) in [
            ("queue amq.gen-WezxjO_BZP7cS3ktqnSOOA", "queue amq.gen-AG83Gm_5bPeLXifdywj1jA", true),
            ("     asked for 1000 ms, came after 1062 ms", "     asked for 1000 ms, came after 999 ms", true),
            (
                "     asked for 1000 ms, came after 1062 ms",
                "     asked for 500 ms, came after 1062 ms",
                false,
            ),
            ("lost; attempt 1/1200 in 21ms", "lost; attempt 1/1200 in 1.2s", true),
            ("lost; attempt 1/1200 in 21ms", "lost; attempt 2/1200 in 21ms", false),
            (
                "transaction per 100            8465   2000 of 2000",
                "transaction per 100   9  2000 of 2000",
                true,
            ),
            (
                "transaction per 100            8465   2000 of 2000",
                "transaction per 100   9  1999 of 2000",
                false,
            ),
            (" [.] 9417 messages per second", " [.] 1 messages per second", true),
            (" [.] Confirmed: 90", " [.] Confirmed: 91", false),
        ] {
            assert_eq!(same_line(page, seen), same, "{page}\n{seen}");
        }
    }
}
