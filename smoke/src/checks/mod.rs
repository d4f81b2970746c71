//! All checks, in the order in which they are tried.

mod bodies;
mod connection;
mod dead_letters;
mod delay;
mod deprecated;
mod durable;
mod exchanges;
mod lasting;
mod limits;
mod patterns;
mod queues;
mod reliability;
mod striker_keeper;
mod transactions;

use std::time::Duration;

use crate::check::{Check, Group, Running};
use crate::trial::Trial;

/// What everything behind the connection needs.
const BASE: &[&str] = &["publish"];

/// A check of the group `patterns`.
const fn of_patterns(name: &'static str, about: &'static str, run: fn(Trial) -> Running) -> Check {
    Check { name, about, group: Group::Patterns, needs: BASE, rests: Duration::ZERO, run }
}

/// A check of the group `features`.
const fn of_features(name: &'static str, about: &'static str, run: fn(Trial) -> Running) -> Check {
    Check { group: Group::Features, ..of_patterns(name, about, run) }
}

/// All checks. A check comes after those that it needs.
pub(crate) fn all() -> impl Iterator<Item = &'static Check> {
    let groups: [&'static [Check]; 13] = [
        connection::CHECKS,
        patterns::CHECKS,
        reliability::CHECKS,
        delay::CHECKS,
        dead_letters::CHECKS,
        transactions::CHECKS,
        striker_keeper::CHECKS,
        exchanges::CHECKS,
        limits::CHECKS,
        queues::CHECKS,
        bodies::CHECKS,
        lasting::CHECKS,
        deprecated::CHECKS,
    ];
    groups.into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_single_and_what_a_check_needs_comes_before_it() {
        let mut before = HashSet::new();
        let mut last = None;
        for check in all() {
            for need in check.needs {
                assert!(before.contains(need), "{} needs {need}", check.name);
            }
            assert!(before.insert(check.name), "{} is there twice", check.name);
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(check.name.chars().all(plain) && check.name.len() <= 24, "{}", check.name);
            assert!(last <= Some(check.group), "{} is not with its group", check.name);
            last = Some(check.group);
        }
        assert!(before.len() > 35);
    }
}
