//! What can be said of a page without running it.

use crate::console::{self, Console};
use crate::page::Page;
use crate::play::Problem;

/// Why a block may not be run: what it needs is not there where the tests run, or would change the machine.
pub const NOT_RUN: &[&str] =
    &["needs Docker", "needs other versions of RabbitMQ", "runs all tests", "takes minutes"];

/// Pages that a test of their own plays, which makes what the commands need: the page, and that test.
pub const PLAYED_ELSEWHERE: &[(&str, &str)] = &[
    ("docs/tls.md", "striker-keeper/tests/tls_page.rs"),
    ("docs/cluster.md", "striker-keeper/tests/cluster/page.rs"),
];

/// What a block can be, besides `console`, `rust` and `mermaid`.
const OTHER: &[&str] = &["text", "toml", "yaml", "json", "ini", "xml"];

/// What is wrong with the blocks of a page: a command where none is run, an unknown language, a reason that is none.
pub fn problems(page: &Page) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut wrong = |line, text: String| problems.push(Problem { place: page.place(line), text });
    let blocks = page.blocks();
    for block in &blocks {
        match console::read(page, block) {
            Some(Err(why)) => wrong(block.start, why),
            Some(Ok(Console::NotRun(reason))) if !NOT_RUN.contains(&&*reason) => {
                wrong(
                    block.start,
                    format!("\"{reason}\" is no reason not to run it: {}", NOT_RUN.join(", ")),
                );
            }
            Some(Ok(_)) => {}
            None if ["rust", "mermaid"].contains(&block.language()) => {}
            None if OTHER.contains(&block.language()) => {
                let commands = page.content(block).iter().enumerate().filter(|(_, line)| is_command(line));
                for (number, _) in commands {
                    wrong(block.start + number, "a command in a block that is not run".to_owned());
                }
            }
            None => wrong(block.start, format!("\"{}\" is not understood", block.info)),
        }
    }
    for (number, line) in page.lines.iter().enumerate() {
        let inside = blocks.iter().any(|block| (block.start..block.end).contains(&number));
        if !inside && (line.starts_with("    ") || line.starts_with('\t')) && is_command(line) {
            wrong(number, "a command outside of a block".to_owned());
        }
        if !inside && line.trim_start() != line && line.trim_start().starts_with("```") {
            wrong(number, "a block that does not begin at the margin".to_owned());
        }
    }
    problems
}

fn is_command(line: &str) -> bool {
    let line = line.trim_start();
    line.starts_with("$ ") || line.starts_with("cargo ") || line.starts_with("rabbitmqctl ")
}

/// The blocks that are not run, each with its reason.
pub fn not_run(page: &Page) -> Vec<Problem> {
    let blocks = page.blocks().into_iter();
    let not_run = blocks.filter_map(|block| match console::read(page, &block)? {
        Ok(Console::NotRun(text)) => Some(Problem { place: page.place(block.start), text }),
        _ => None,
    });
    not_run.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_that_are_not_run_are_found() {
        let page = Page::new(
            "a.md",
            "```console\n$ a\n```\n```console not run: needs Docker\n$ a\n```\n```console not run: lazy\n$ a\n```\n\
             ```text\n$ a\n```\n```sh\na\n```\n    $ a\n ```\n```\nno language\n```\n",
        );
        let lines: Vec<_> = problems(&page).iter().map(|problem| problem.place.clone()).collect();
        assert_eq!(lines, ["a.md:8", "a.md:11", "a.md:14", "a.md:19", "a.md:16", "a.md:17"]);
        assert_eq!(not_run(&page).len(), 2);
    }
}
