//! Users who may do less than everything.

use broker::Vhost;
use serde_json::json;

use crate::support::*;

/// A user of one vhost, gone with this value.
pub(crate) struct User {
    name: String,
    url: String,
}

impl User {
    /// With these patterns of what it may configure, write and read.
    pub(crate) fn new(vhost: &Vhost<'_>, [configure, write, read]: [&str; 3]) -> Self {
        let node = broker::node();
        let name = format!("user-of-{}", vhost.name());
        node.put(&format!("/api/users/{name}"), &json!({"password": "s3cret", "tags": ""})).unwrap();
        let permissions = json!({"configure": configure, "write": write, "read": read});
        node.put(&format!("/api/permissions/{}/{name}", vhost.name()), &permissions).unwrap();
        let url = vhost.url().replace("guest:guest", &format!("{name}:s3cret"));
        Self { name, url }
    }

    pub(crate) fn url(&self) -> String {
        self.url.clone()
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = broker::node().delete(&format!("/api/users/{}", self.name));
    }
}

/// The command that the page tells to type, which is also what a report tells.
fn command_of_the_page() -> String {
    let page = include_str!("../../README.md");
    let typed = |line: &str| line.strip_prefix("$ rabbitmqctl set_permissions guest ").map(str::to_owned);
    let patterns = page.lines().find_map(typed).expect("the page tells the command");
    format!("rabbitmqctl set_permissions -p VHOST USER {patterns}")
}

#[test]
fn the_documented_permissions_are_enough_and_none_of_them_is_too_much() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    let command = command_of_the_page();
    let quoted: Vec<_> = command.split('\'').skip(1).step_by(2).collect();
    let patterns: [&str; 3] = quoted.try_into().unwrap();

    let user = User::new(&vhost, patterns);
    let all = report(smoke(&user.url()));
    assert_eq!((all.end.code, all.with("skipped")), (Some(0), vec!["tls"]), "{}", all.end);
    expect_nothing_left(&vhost);

    // Each part of each pattern is needed by some check.
    for (at, pattern) in patterns.iter().enumerate() {
        let parts: Vec<_> = pattern.trim_start_matches("^(").trim_end_matches(')').split('|').collect();
        for part in &parts {
            let mut fewer = patterns.map(str::to_owned);
            let rest: Vec<_> = parts.iter().filter(|other| other != &part).copied().collect();
            fewer[at] = format!("^({})", rest.join("|"));
            drop(User::new(&vhost, [""; 3]));
            let user = User::new(&vhost, [&*fewer[0], &*fewer[1], &*fewer[2]]);
            let less = report(smoke(&user.url()).args(["--skip", "heartbeat"]));
            assert_eq!(less.end.code, Some(1), "without {part} in {pattern}: {}", less.end);
            assert_eq!(less.with("fail"), [""; 0], "without {part} in {pattern}: {}", less.end);
            expect_nothing_left(&vhost);
        }
    }
}

#[test]
fn without_the_permission_to_write_the_check_is_skipped_with_the_command_that_gives_it() {
    let vhost = broker::node().vhost().unwrap();
    let user = User::new(&vhost, [".*", "", ".*"]);
    let report = report(smoke(&user.url()));
    assert_eq!(report.end.code, Some(1), "{}", report.end);
    let command = command_of_the_page().replace("VHOST", vhost.name()).replace("USER", &user.name);
    report.expect("queue", "pass", &[]);
    report.expect("publish", "skipped", &["no permission", "amq.default", &command]);
    assert_eq!(report.check("publish")["missing_permission"], true);
    report.expect("hello", "skipped", &["needs publish"]);
    assert_eq!(report.with("fail"), [""; 0]);
    expect_nothing_left(&vhost);
}

#[test]
fn a_user_without_any_permission_on_the_vhost_is_told_so() {
    let vhost = broker::node().vhost().unwrap();
    let user = User::new(&vhost, ["", "", ""]);
    let report = report(smoke(&user.url()).args(["--profile", "quick"]));
    report.expect("queue", "skipped", &["no permission", "rabbitmqctl set_permissions -p"]);
    assert_eq!(report.end.code, Some(1));
}
