//! The commands of a `console` block, with what they print.

use crate::page::{Block, Page};

/// What a shell prints for a program that a signal ended.
pub(crate) const KILLED: &str = "Killed";

/// How the terminal shows Ctrl-C; what the program says to it may follow in the same line.
pub(crate) const CTRL_C: &str = "^C";

/// A command of a page. Lines are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Command {
    /// The line with the `$`.
    pub(crate) line: usize,
    /// What is typed.
    pub(crate) text: String,
    /// The first line of the output, which is the first behind the command.
    pub(crate) start: usize,
    /// What it prints.
    pub(crate) output: Vec<String>,
    /// When it ends.
    pub(crate) end: End,
}

/// When a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Before the next one is typed.
    First,
    /// By itself, beside the following blocks.
    Beside,
    /// When Ctrl-C is pressed, at this line of its output.
    CtrlC(usize),
    /// When a later command kills it.
    Killed,
}

/// What the block says about running it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Console {
    /// The commands, and where one is missing.
    Run(Vec<Command>),
    /// Not here, for this reason.
    NotRun(String),
}

/// Reads a block; `None` if it is no `console`, an error if it is a wrong one.
pub(crate) fn read(page: &Page, block: &Block) -> Option<Result<Console, String>> {
    if block.language() != "console" {
        return None;
    }
    let beside = match block.info["console".len()..].trim() {
        "" => false,
        "&" => true,
        other => {
            return Some(match other.strip_prefix("not run: ") {
                Some(reason) => Ok(Console::NotRun(reason.to_owned())),
                None => Err(format!("\"{}\" is not understood", block.info)),
            });
        }
    };
    let mut commands: Vec<Command> = Vec::new();
    let mut lines = (block.start..block.end).zip(page.content(block));
    while let Some((line, text)) = lines.next() {
        if let Some(text) = text.strip_prefix("$ ") {
            let (mut text, mut start) = (text.to_owned(), line + 1);
            while let Some(cut) = text.strip_suffix('\\').map(str::len) {
                let Some((line, next)) = lines.next() else { break };
                text.truncate(cut);
                text += next.trim_start();
                start = line + 1;
            }
            commands.push(Command { line, text, start, output: Vec::new(), end: End::First });
        } else if let Some(command) = commands.last_mut() {
            command.output.push(text.clone());
        } else {
            return Some(Err("it begins with an output instead of a command".to_owned()));
        }
    }
    let Some(last) = commands.last_mut() else {
        return Some(Err("it has no command".to_owned()));
    };
    last.end = match last.output.iter().position(|line| line.starts_with(CTRL_C)) {
        Some(at) => End::CtrlC(at),
        None if last.output.last().is_some_and(|line| line == KILLED) => End::Killed,
        None if beside => End::Beside,
        None => End::First,
    };
    Some(Ok(Console::Run(commands)))
}

impl Command {
    /// The program that cargo is to run.
    pub(crate) fn program(&self) -> Option<&str> {
        let words: Vec<_> = self.text.split_whitespace().take_while(|word| *word != "--").collect();
        let after =
            |name| words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1).copied());
        after("--bin").or_else(|| after("--example")).or_else(|| after("-p"))
    }

    /// How many lines a program that runs beside the others prints before the next command is typed: up to the one
    /// that says that it waits, or else the first.
    pub(crate) fn ready(&self) -> usize {
        let waits = |line: &String| {
            line.starts_with(" [*] ") || line.starts_with("running ") || line.contains("press Ctrl-C")
        };
        let limit = self.before_its_end().len();
        self.before_its_end().iter().position(waits).map_or(1, |at| at + 1).min(limit)
    }

    /// The output, up to what ends it from outside.
    pub(crate) fn before_its_end(&self) -> &[String] {
        match self.end {
            End::CtrlC(at) => &self.output[..at],
            End::Killed => &self.output[..self.output.len() - 1],
            End::First | End::Beside => &self.output,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(text: &str) -> Result<Console, String> {
        let page = Page::new("a.md", text);
        read(&page, &page.blocks()[0]).unwrap()
    }

    #[test]
    fn commands_have_their_outputs_and_their_ends() {
        let Ok(Console::Run(commands)) = commands(
            "```console\n$ a \\\n    b\none\n$ cargo run -p c --bin d -- -p x\ntwo\n [*] w\n^C INFO end\n```",
        ) else {
            panic!()
        };
        assert_eq!((commands[0].text.as_str(), commands[0].line, commands[0].start), ("a b", 1, 3));
        assert_eq!((&*commands[0].output, commands[0].end), (&["one".to_owned()][..], End::First));
        assert_eq!(
            (commands[1].program(), commands[1].end, commands[1].ready()),
            (Some("d"), End::CtrlC(2), 2)
        );
    }

    #[test]
    fn what_is_no_command_is_an_error() {
        assert!(commands("```console\nhello\n```").is_err());
        assert!(commands("```console\n```").is_err());
        assert!(commands("```console now\n$ a\n```").is_err());
        let reason = Console::NotRun("needs Docker".to_owned());
        assert_eq!(commands("```console not run: needs Docker\n$ docker\n```"), Ok(reason));
    }
}
