//! The project's own workflow, and those that the page about pipelines offers: they can be read, and what they run
//! exists.

use serde_json::Value;

use crate::yaml::{parse, root, text};

const PAGE: &str = "docs/ci.md";
const WORKFLOW: &str = ".github/workflows/test.yml";

/// The fenced blocks of YAML in a page.
fn yaml_blocks(page: &str) -> Vec<String> {
    page.split("\n```yaml\n").skip(1).map(|rest| rest.split("\n```").next().unwrap().to_owned()).collect()
}

/// The lines of shell in a GitHub workflow, after a check that it has what GitHub asks for.
fn github_commands(workflow: &Value) -> Vec<String> {
    assert!(!workflow["on"].is_null(), "no event starts it");
    let jobs = workflow["jobs"].as_object().expect("jobs");
    let mut commands = Vec::new();
    for (name, job) in jobs {
        assert!(job["runs-on"].is_string(), "{name} runs nowhere");
        assert!(job["timeout-minutes"].is_u64(), "{name} may hang for hours");
        for step in job["steps"].as_array().expect("steps") {
            assert!(step["uses"].is_string() != step["run"].is_string(), "{name}: {step}");
            commands.extend(step["run"].as_str().unwrap_or_default().lines().map(str::to_owned));
        }
    }
    commands
}

/// The lines of shell in a GitLab pipeline.
fn gitlab_commands(pipeline: &Value) -> Vec<String> {
    let jobs = pipeline.as_object().expect("jobs").values();
    let scripts = jobs.flat_map(|job| ["before_script", "script"].map(|name| job[name].clone()));
    let lines = scripts.flat_map(|script| script.as_array().cloned().unwrap_or_default());
    lines.map(|line| line.as_str().expect("a command").to_owned()).collect()
}

/// Whether a command is one of this workspace's. What is behind `smoke` is run by a test of that crate.
fn check(command: &str) {
    let words: Vec<_> = command.split_whitespace().collect();
    let known = match words[..] {
        ["cargo", "install", "--locked", "--path", folder] => {
            root().join(folder.trim_start_matches("rabbitmq-tutorials/")).join("Cargo.toml").is_file()
        }
        ["smoke", ..] => true,
        _ => false,
    };
    assert!(known, "nobody knows whether this works: {command}");
}

#[test]
fn the_projects_own_workflow_runs_the_everyday_tests() {
    let workflow = parse(&text(WORKFLOW));
    let commands = github_commands(&workflow);
    assert_eq!(commands, ["cargo xtask test --install"]);
    // The same as everywhere else.
    assert!(root().join(".ci/run").is_file() && text(".ci/run").contains(&*commands[0]));
    assert_eq!(workflow["permissions"], serde_json::json!({"contents": "read"}));
}

#[test]
fn the_pages_pipelines_have_a_broker_that_is_waited_for_and_commands_that_exist() {
    let blocks: Vec<_> = yaml_blocks(&text(PAGE)).iter().map(|block| parse(block)).collect();
    let (github, gitlab): (Vec<_>, Vec<_>) = blocks.iter().partition(|block| block.get("jobs").is_some());
    assert_eq!((github.len(), gitlab.len()), (1, 1), "a block for each kind of pipeline");
    for workflow in github {
        for job in workflow["jobs"].as_object().unwrap().values() {
            let broker = &job["services"]["rabbitmq"];
            assert!(broker["image"].as_str().unwrap().starts_with("rabbitmq:"), "{broker}");
            let options = broker["options"].as_str().unwrap();
            assert!(
                options.contains("--health-cmd \"rabbitmq-diagnostics -q check_port_connectivity\""),
                "{options}"
            );
            assert!(broker["ports"].as_array().unwrap().iter().any(|port| port == "5672:5672"), "{broker}");
        }
        github_commands(workflow).iter().for_each(|command| check(command));
    }
    for pipeline in gitlab {
        for job in pipeline.as_object().unwrap().values() {
            let broker = &job["services"][0];
            assert!(broker["name"].as_str().unwrap().starts_with("rabbitmq:"), "{broker}");
            let url = job["variables"]["AMQP_URL"].as_str().unwrap();
            assert!(url.contains(&format!("@{}:5672/", broker["alias"].as_str().unwrap())), "{url}");
        }
        gitlab_commands(pipeline).iter().for_each(|command| check(command));
    }
}
