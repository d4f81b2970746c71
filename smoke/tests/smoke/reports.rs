//! What pipelines and monitoring systems read.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use harness::Program;
use quick_xml::events::Event;
use quick_xml::{Reader, XmlVersion};
use serde_json::Value;

use crate::support::*;

/// A broker, another one that is not there, one with a fault in it: URLs and options.
fn cases(vhost: &broker::Vhost<'_>) -> Vec<Program> {
    let nothing = format!("amqp://127.0.0.1:{}", broker::free_port().unwrap());
    vec![
        smoke(&vhost.url()),
        smoke(&vhost.url()).args(["--profile", "quick", "--repeat", "2", "--strict"]),
        smoke(&vhost.url()).args(["--only", "heartbeat", "--deadline", "1s"]),
        smoke(&nothing).args(["--wait", "0s"]),
    ]
}

#[test]
fn the_json_is_as_the_published_schema_says() {
    let vhost = broker::node().vhost().unwrap();
    let schema: Value = serde_json::from_str(include_str!("../../schema/report.v1.json")).unwrap();
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.add_resource("report.json", schema).unwrap();
    let schema = compiler.compile("report.json", &mut schemas).unwrap();
    let check = |report: &Value| schemas.validate(report, schema).map_err(|error| error.to_string());
    let mut outcomes = Vec::new();
    for program in cases(&vhost) {
        let report = report(program);
        check(&report.value).unwrap();
        let summary = report.value["summary"].as_object().unwrap();
        let sum: u64 = summary.values().map(|count| count.as_u64().unwrap()).sum();
        assert_eq!(sum, report.value["checks"].as_array().unwrap().len() as u64);
        outcomes.push((report.value["outcome"].as_str().unwrap().to_owned(), report.end.code));
    }
    let expected = [("passed", 0), ("passed", 0), ("deadline", 3), ("unreachable", 2)];
    assert_eq!(outcomes, expected.map(|(word, code)| (word.to_owned(), Some(code))));

    // The schema can say no.
    let mut wrong = report(smoke(&vhost.url()).args(["--only", "hello"])).value;
    check(&wrong).unwrap();
    wrong["checks"][0]["status"] = "fail".into();
    check(&wrong).expect_err("a failure without a fault");
    wrong["checks"][0]["status"] = "good".into();
    check(&wrong).expect_err("an unknown status");
}

/// The elements of a well-formed document: name, attributes, and the text right in it.
fn elements(xml: &str) -> Vec<(String, HashMap<String, String>)> {
    let mut reader = Reader::from_str(xml);
    reader.config_mut().check_end_names = true;
    reader.config_mut().check_comments = true;
    let (mut elements, mut open) = (Vec::new(), 0);
    loop {
        let (element, opens) = match reader.read_event().unwrap_or_else(|error| panic!("{error}: {xml}")) {
            Event::Start(element) => (element, 1),
            Event::Empty(element) => (element, 0),
            Event::End(_) => {
                open -= 1;
                continue;
            }
            Event::Eof => break,
            _ => continue,
        };
        open += opens;
        let attributes = element.attributes().map(|attribute| {
            // Doubled attributes and open quotation marks are errors here.
            let attribute = attribute.unwrap();
            let value = attribute.normalized_value(XmlVersion::Implicit1_0).unwrap().into_owned();
            (attribute.key.as_ref().to_owned(), value)
        });
        let name = element.name().as_ref().to_owned();
        let attributes = attributes.collect();
        elements.push((name, attributes));
    }
    assert_eq!(open, 0, "{xml}");
    elements
}

#[test]
fn the_junit_file_is_well_formed_and_its_sums_are_right() {
    let vhost = broker::node().vhost().unwrap();
    for (at, program) in cases(&vhost).into_iter().enumerate() {
        let end = program.args(["--output", "junit"]).run();
        let xml = end.stdout.join("\n");
        assert!(xml.starts_with(r#"<?xml version="1.0" encoding="UTF-8"?>"#), "{xml}");
        let elements = elements(&xml);
        let count = |name: &str| elements.iter().filter(|(element, _)| element == name).count();
        let (root, totals) = &elements[0];
        assert_eq!(
            (root.as_str(), elements[1].0.as_str(), count("testsuite")),
            ("testsuites", "testsuite", 1)
        );
        for totals in [totals, &elements[1].1] {
            let total = |name: &str| totals[name].parse::<usize>().unwrap();
            assert_eq!(total("tests"), count("testcase"));
            assert_eq!(total("failures"), count("failure"));
            assert_eq!(total("errors"), count("error"));
            assert_eq!(total("skipped"), count("skipped"));
            assert!(totals["time"].parse::<f64>().unwrap() >= 0.0);
        }
        for (name, attributes) in &elements {
            let required: &[&str] = match name.as_str() {
                "testsuites" => &["name", "tests"],
                "testsuite" => &["name", "tests", "timestamp", "hostname"],
                "testcase" => &["name", "classname", "time"],
                "failure" | "error" => &["type", "message"],
                "skipped" => &["message"],
                "property" => &["name", "value"],
                "properties" | "system-out" => &[],
                other => panic!("{other} is no element of JUnit"),
            };
            for attribute in required {
                assert!(attributes.contains_key(*attribute), "{name} without {attribute}: {xml}");
            }
        }
        let (errors, failures) = (count("error"), count("failure"));
        assert_eq!([(0, 0), (0, 0), (0, 1), (1, 0)][at], (errors, failures), "{xml}");
    }
}

#[test]
fn nagios_gets_one_line_with_performance_data_and_its_own_exit_codes() {
    let vhost = broker::node().vhost().unwrap();
    let nothing = format!("amqp://127.0.0.1:{}", broker::free_port().unwrap());
    let run =
        |url: &str, more: &[&str]| smoke(url).args(["--output", "nagios", "--wait", "0s"]).args(more).run();
    let user = crate::permissions::User::new(&vhost, [".*", "", ".*"]);
    let list = smoke(&nothing).arg("--list").run().expect_code(0);
    let quick = list.stdout.iter().filter(|line| line.split_whitespace().nth(2) == Some("quick")).count();
    // All but that of TLS.
    let all_pass = format!("SMOKE OK - {} pass, 1 skipped on RabbitMQ ", quick - 1);
    for (url, more, code, start) in [
        (vhost.url(), &["--profile", "quick"][..], 0, &*all_pass),
        (vhost.url(), &["--only", "hello", "--slow", "1ms"], 1, "SMOKE WARNING - "),
        (nothing, &[], 2, "SMOKE CRITICAL - "),
        (vhost.url(), &["--only", "heartbeat", "--deadline", "1s"], 2, "SMOKE CRITICAL - "),
        (user.url(), &["--only", "hello"], 3, "SMOKE UNKNOWN - "),
    ] {
        let end = run(&url, more).expect_code(code);
        let (status, data) = end.stdout[0].split_once(" | ").unwrap();
        assert!(status.starts_with(start), "{status}");
        for item in data.split(' ') {
            let (label, value) = item.split_once('=').unwrap();
            let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            assert!(!label.is_empty() && number.parse::<f64>().is_ok(), "{item}");
        }
        assert!(end.stdout[1..].iter().all(|line| !line.contains('|')), "{end}");
    }
    run(&vhost.url(), &["--only", "nonsense"]).expect_code(3);
    run(&vhost.url(), &["--nonsense"]).expect_code(3);
}

#[test]
fn the_report_goes_to_a_file_and_the_table_to_standard_output() {
    let vhost = broker::node().vhost().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("report");
    for (output, start) in
        [("json", "{"), ("junit", "<?xml"), ("nagios", "SMOKE OK"), ("table", "smoke 0.1.0 on ")]
    {
        let program = smoke(&vhost.url()).args(["--only", "hello", "--output", output, "--output-file"]);
        let end = program.arg(&file).run().expect_code(0);
        assert!(std::fs::read_to_string(&file).unwrap().starts_with(start), "{output}");
        assert!(end.stdout.iter().any(|line| line.starts_with("hello                pass")), "{end}");
    }
    let end = smoke(&vhost.url()).args(["--output-file", "/nonexistent/report"]).run().expect_code(64);
    assert!(end.stderr[0].contains("--output-file /nonexistent/report"), "{end}");
    assert_eq!(end.stdout, [""; 0]);
}

#[test]
fn a_report_that_cannot_be_written_is_an_error() {
    let vhost = broker::node().vhost().unwrap();
    let smoke = env!("CARGO_BIN_EXE_smoke");
    for line in [r#"exec "$0" "$@" > /dev/full"#, r#"exec "$0" "$@" --output-file /dev/full"#] {
        let program = Program::new("sh").args(["-c", line, smoke, "--url", &vhost.url()]);
        let end = program.args(["--only", "tcp", "--output", "json"]).run().expect_code(70);
        assert!(end.stderr.iter().any(|line| line.starts_with("error: cannot write")), "{end}");
    }
}

#[test]
fn wrong_usage_is_told_before_anything_connects() {
    let url = "amqp://user:s3cret@127.0.0.1:1";
    for (args, words) in [
        (&["--only", "helo"][..], "there is no check or group 'helo'"),
        (&["--skip", "helo"], "there is no check or group 'helo'"),
        (&["--timeout", "5"], "--timeout"),
        (&["--jobs", "0"], "--jobs"),
        (&["--expires", "50d"], "--expires"),
        (&["--output", "yaml"], "yaml"),
        (&["--ca-cert", "/nonexistent"], "--ca-cert"),
        (&["--prefix", &"x".repeat(200)], "--prefix"),
        (&["amqp://user:s3cret@host"], "unexpected argument"),
    ] {
        let end = smoke(url).args(args).run().expect_code(64);
        let text = end.stderr.join("\n");
        assert!(text.contains(words) && !text.contains("s3cret"), "{words}: {text}");
        assert_eq!(end.stdout, [""; 0]);
    }
    smoke(url).arg(OsStr::from_bytes(b"\xff")).run().expect_code(64);
}

#[test]
fn the_list_names_every_check() {
    let end = smoke("amqp://127.0.0.1:1").arg("--list").run().expect_code(0);
    let all = report(smoke("amqp://127.0.0.1:1").args(["--wait", "0s"]));
    let names: Vec<_> =
        all.value["checks"].as_array().unwrap().iter().map(|check| check["name"].as_str().unwrap()).collect();
    let listed: Vec<_> = end.stdout[1..].iter().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(listed, names);
}
