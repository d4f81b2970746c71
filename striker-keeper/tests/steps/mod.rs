//! The commands of a page that a test plays, and what they are to print.

use std::collections::VecDeque;

/// A command of the page and what it is to print.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) words: Vec<String>,
    pub(crate) output: Vec<String>,
}

/// The commands in the page's fenced blocks that are not marked as not run.
pub(crate) fn of(page: &str) -> Vec<Step> {
    let blocks =
        page.split("\n```console\n").skip(1).map(|rest| rest.split("\n```").next().unwrap_or_default());
    let mut steps: Vec<Step> = Vec::new();
    for block in blocks {
        let mut lines: VecDeque<_> = block.lines().collect();
        while let Some(line) = lines.pop_front() {
            let Some(command) = line.strip_prefix("$ ") else {
                steps.last_mut().expect("a command comes first").output.push(line.to_owned());
                continue;
            };
            let mut command = command.to_owned();
            while let Some(start) = command.strip_suffix('\\') {
                command = start.to_owned() + lines.pop_front().expect("the command goes on");
            }
            let words = command.split_whitespace().map(|word| word.trim_matches('"').to_owned()).collect();
            steps.push(Step { words, output: Vec::new() });
        }
    }
    steps
}

/// Whether a line is the expected one, in which `…` stands for anything.
pub(crate) fn is_like(expected: &str, line: &str) -> bool {
    let Some((start, rest)) = expected.split_once('…') else { return expected == line };
    let Some(line) = line.strip_prefix(start) else { return false };
    line.char_indices().any(|(at, _)| is_like(rest, &line[at..]))
}
