//! Plays one exchange with real processes, shows what they print, and compares it with what is expected.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Program, Running, Stream};

use crate::exchanges::{Consumer, Exchange, MANAGEMENT, Producer};
use crate::interrupt::Interrupt;
use crate::programs::Programs;
use crate::say::say;

/// How long a program may take for its next line, or for its end.
const PATIENCE: Duration = Duration::from_secs(20);

/// What all exchanges have in common.
pub(crate) struct Stage {
    /// The broker's URL.
    pub(crate) url: String,
    /// Where the management API is, if it may be used.
    pub(crate) management: Option<String>,
    /// Goes before the name of every queue and exchange.
    pub(crate) prefix: String,
    /// The built programs.
    pub(crate) programs: Programs,
    /// Ctrl-C.
    pub(crate) interrupt: Interrupt,
}

impl Stage {
    /// Plays the exchange; an error says what was not as expected.
    pub(crate) fn play(&self, exchange: &Exchange) -> Result<()> {
        let consumers = exchange.consumers.iter().map(|consumer| (consumer.program, consumer.args));
        let producers = exchange.producers.iter().map(|producer| (producer.program, producer.args));
        let cast: Vec<_> = consumers.chain(producers).collect();
        let actor = |at: usize| Actor { stage: self, cast: &cast, at };

        let mut running = Vec::new();
        for (at, consumer) in exchange.consumers.iter().enumerate() {
            running.push((actor(at), actor(at).start_consumer(consumer)?, consumer));
        }
        for (at, producer) in (exchange.consumers.len()..).zip(exchange.producers) {
            actor(at).run_producer(producer)?;
        }
        for (actor, program, consumer) in running {
            actor.finish_consumer(&program, consumer)?;
        }
        Ok(())
    }
}

impl Stage {
    /// Whether the exchange can be played on this broker.
    pub(crate) fn can_play(&self, exchange: &Exchange) -> bool {
        self.management.is_some() || !exchange.needs_management()
    }

    fn argument<'a>(&'a self, arg: &'a str) -> &'a str {
        if arg == MANAGEMENT { self.management.as_deref().unwrap_or_default() } else { arg }
    }
}

/// One program of an exchange: which of the cast it is decides what its lines begin with.
struct Actor<'a> {
    stage: &'a Stage,
    cast: &'a [(&'static str, &'static [&'static str])],
    at: usize,
}

impl Actor<'_> {
    fn start_consumer(&self, consumer: &Consumer) -> Result<Arc<Running>> {
        let program = self.start()?;
        program.try_wait_for_line(Stream::Stdout, |line| line == consumer.ready).map_err(first_line)?;
        Ok(program)
    }

    fn finish_consumer(&self, program: &Running, consumer: &Consumer) -> Result<()> {
        for expected in consumer.then {
            program.try_wait_for_line(Stream::Stdout, |line| matches(expected, line)).map_err(first_line)?;
        }
        self.show("^", "C");
        program.try_interrupt().map_err(first_line)?;
        self.finish(program, |printed| {
            let ready = printed.iter().position(|line| line == consumer.ready);
            ready.is_some_and(|ready| {
                let lines = &printed[ready + 1..];
                let expected = [consumer.then, consumer.end].concat();
                lines.len() == expected.len() && expected.iter().zip(lines).all(|(e, l)| matches(e, l))
            })
        })
    }

    fn run_producer(&self, producer: &Producer) -> Result<()> {
        self.finish(&*self.start()?, |printed| printed == producer.prints)
    }

    fn start(&self) -> Result<Arc<Running>> {
        let (name, args) = self.cast[self.at];
        let built = self.stage.programs.get(name)?;
        let args: Vec<_> = args.iter().map(|arg| self.stage.argument(arg)).collect();
        self.show("$ ", &command_line(&built.package, name, &args));
        let label = self.label();
        let program = Program::new(&built.path)
            .args(args)
            .env("AMQP_URL", &self.stage.url)
            .env("AMQP_PREFIX", &self.stage.prefix)
            .deadline(PATIENCE)
            .on_line(move |_, line| print(&label, "| ", line))
            .try_start()
            .map_err(first_line)?;
        let program = Arc::new(program);
        self.stage.interrupt.stops(&program);
        Ok(program)
    }

    /// Waits for the end, which must be a good one, after the lines that were expected.
    fn finish(&self, program: &Running, as_expected: impl Fn(&[String]) -> bool) -> Result<()> {
        let end = program.try_wait(PATIENCE).and_then(|end| end.try_code(0)).map_err(first_line)?;
        ensure!(as_expected(&end.stdout), "{} did not print what it should", self.cast[self.at].0);
        Ok(())
    }

    fn show(&self, sign: &str, text: &str) {
        print(&self.label(), sign, text);
    }

    /// The program's name, with a number if there are several of that name, as wide as the widest.
    fn label(&self) -> String {
        let labels = labels(&self.cast.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        let width = labels.iter().map(String::len).max().unwrap_or_default();
        format!("{:width$}", labels[self.at])
    }
}

fn labels(names: &[&str]) -> Vec<String> {
    let count = |names: &[&str], name: &str| names.iter().filter(|other| **other == name).count();
    (0..names.len())
        .map(|at| match count(names, names[at]) {
            1 => names[at].to_owned(),
            _ => format!("{} {}", names[at], count(&names[..=at], names[at])),
        })
        .collect()
}

/// Whether the line is the expected one, in which `[..]` stands for any text.
fn matches(expected: &str, line: &str) -> bool {
    match expected.split_once("[..]") {
        None => expected == line,
        Some((start, rest)) => line.strip_prefix(start).is_some_and(|line| {
            line.char_indices().map(|(at, _)| at).chain([line.len()]).any(|at| matches(rest, &line[at..]))
        }),
    }
}

/// What a person types to run a program.
fn command_line(package: &str, program: &str, args: &[&str]) -> String {
    let mut words =
        vec!["cargo run -p".to_owned(), package.to_owned(), "--bin".to_owned(), program.to_owned()];
    if args.iter().any(|arg| arg.starts_with('-')) {
        // Else cargo would take the options for its own.
        words.push("--".to_owned());
    }
    words.extend(args.iter().map(|arg| quoted(arg)));
    words.join(" ")
}

/// An argument as it is typed: in quotation marks where a shell would take it for a pattern or for several.
fn quoted(arg: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.:/,=".contains(c);
    if !arg.is_empty() && arg.chars().all(plain) { arg.to_owned() } else { format!("\"{arg}\"") }
}

fn print(label: &str, sign: &str, text: &str) {
    say!("  {label} {sign}{text}");
}

/// The lines of the program, which follow in the failure's text, were shown already.
fn first_line(failure: impl Display) -> anyhow::Error {
    let text = failure.to_string();
    anyhow::Error::msg(text.lines().next().unwrap_or_default().to_owned())
}

#[cfg(test)]
mod tests {
    use super::{labels, matches, quoted};

    #[test]
    fn programs_of_one_name_are_numbered() {
        assert_eq!(labels(&["worker", "worker", "task"]), ["worker 1", "worker 2", "task"]);
    }

    #[test]
    fn a_wildcard_stands_for_any_text() {
        for (expected, line, same) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("after [..] ms", "after 301 ms", true),
            ("after [..] ms", "after 301 s", false),
            ("x: [..]", "x: ", true),
            ("[..] b [..]", "a b ß", true),
        ] {
            assert_eq!(matches(expected, line), same, "{expected} {line}");
        }
    }

    #[test]
    fn patterns_and_spaces_are_quoted() {
        assert_eq!(["info:", "kern.*", "a b", ""].map(quoted), ["info:", "\"kern.*\"", "\"a b\"", "\"\""]);
    }
}
