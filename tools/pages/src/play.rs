//! Plays a page: runs its commands from top to bottom, as a reader would, and compares what they print.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fmt, fs, thread};

use anyhow::Result;
use broker::{Node, Vhost};
use harness::{Program, Running, Stream};
use tempfile::TempDir;

use crate::compare::{ANY, difference, same, updated};
use crate::console::{self, CTRL_C, Command, Console, End, KILLED};
use crate::differs::same_line;
use crate::page::{Element, Page};
use crate::programs::Programs;
use crate::shims;

/// For the next line of a program.
const PATIENCE: Duration = Duration::from_secs(60);

/// For the end of a program, which may have a thing to do first.
const END: Duration = Duration::from_secs(180);

/// For the numbers of `rabbitmqctl`, which lag behind.
const LAG: Duration = Duration::from_secs(10);

/// What a program says that takes more than a moment to end, which it may or may not.
const FINISHING: &str = "INFO finishing the work in hand";

/// How many pages are played at once: they wait more than they compute.
const AT_ONCE: usize = 4;

/// What was not as the page says.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The page and the line, as in `hello/README.md:27`.
    pub place: String,
    /// What was seen instead, in one line or several.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.text)
    }
}

/// What pages are played on.
pub struct Stage<'n> {
    /// A node that is shared with others.
    pub node: &'n Node,
    /// The built programs.
    pub programs: &'n Programs,
}

/// What came of a page.
pub struct Played {
    /// The page with the outputs that were seen.
    pub page: Page,
    /// Where it was not as it says.
    pub problems: Vec<Problem>,
    /// How many commands were run.
    pub commands: usize,
    /// How long it took.
    pub time: Duration,
}

impl Stage<'_> {
    /// Plays pages, some at once, and hands each result over as it comes.
    pub fn play_all(&self, pages: &[Page], mut done: impl FnMut(Played) + Send) {
        // Those that begin with the start of a node take longest.
        let (own, shared): (Vec<_>, Vec<_>) = pages.iter().partition(|page| needs_own_node(page));
        let waiting = Mutex::new(own.into_iter().chain(shared).collect::<VecDeque<_>>());
        let done: Mutex<&mut (dyn FnMut(Played) + Send)> = Mutex::new(&mut done);
        thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(|| {
                    while let Some(page) =
                        { waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front() }
                    {
                        let played = self.play(page);
                        done.lock().unwrap_or_else(PoisonError::into_inner)(played);
                    }
                });
            }
        });
    }

    /// Plays one page.
    pub fn play(&self, page: &Page) -> Played {
        let started = Instant::now();
        let mut played = self.try_play(page).unwrap_or_else(|error| Played {
            page: page.clone(),
            problems: vec![Problem { place: page.path.display().to_string(), text: format!("{error:#}") }],
            commands: 0,
            time: Duration::ZERO,
        });
        played.time = started.elapsed();
        played
    }

    fn try_play(&self, page: &Page) -> Result<Played> {
        let own = if needs_own_node(page) { Some(Node::start()?) } else { None };
        let vhost = if own.is_none() { Some(self.node.vhost()?) } else { None };
        let node = own.as_ref().unwrap_or(self.node);
        let url = vhost.as_ref().map_or_else(|| node.url(), Vhost::url);
        let vhost = vhost.as_ref().map(Vhost::name);
        let folder = tempfile::Builder::new().prefix("page-").tempdir()?;
        // Where the commands of the pages write, if they do.
        fs::create_dir(folder.path().join("target"))?;
        let running = folder.path().join("running");
        fs::write(&running, "")?;
        let shims = folder.path().join("bin");
        shims::write(&shims, self.programs, node, vhost)?;
        let paths = env::var_os("PATH").unwrap_or_default();
        let path = env::join_paths([shims].into_iter().chain(env::split_paths(&paths)))?;
        let path = path.to_string_lossy().into_owned();
        let mut usual = vec![
            (format!("127.0.0.1:{}", node.port()), "127.0.0.1:5672"),
            (node.management_url(), "http://127.0.0.1:15672"),
        ];
        if let Some((name, _)) = node.name().split_once('@') {
            usual.push((format!("{name}@"), "rabbit@"));
        }
        if let Some(vhost) = vhost {
            // In a URL, with and without an encoding of its own, and elsewhere.
            usual.push((format!("/{}", vhost.replace('-', "%2D")), "/%2F"));
            usual.push((format!("/{vhost}"), "/%2F"));
            usual.push((vhost.to_owned(), "/"));
        }
        let mut play = Play {
            page,
            folder,
            running,
            path,
            url,
            usual,
            beside: Vec::new(),
            seen: Vec::new(),
            problems: Vec::new(),
        };
        play.play_through();
        Ok(play.ended())
    }
}

/// Whether one of the page's commands needs a node that nobody else uses.
fn needs_own_node(page: &Page) -> bool {
    let blocks = page.blocks().into_iter().filter_map(|block| console::read(page, &block));
    blocks.filter_map(Result::ok).any(|block| match block {
        Console::Run(commands) => commands.iter().any(|command| shims::needs_own_node(&command.text)),
        Console::NotRun(_) => false,
    })
}

struct Play<'p> {
    page: &'p Page,
    /// Where the commands run.
    folder: TempDir,
    /// The list of the programs that run beside the others, for `pgrep`.
    running: PathBuf,
    path: String,
    url: String,
    /// What this node and vhost are called, and what the reader's are.
    usual: Vec<(String, &'static str)>,
    beside: Vec<Beside>,
    /// The commands that have ended, with what they printed.
    seen: Vec<(Command, Vec<String>)>,
    problems: Vec<Problem>,
}

/// A command that runs beside the following blocks.
struct Beside {
    command: Command,
    running: Running,
    /// How many of its lines were waited for.
    taken: usize,
    /// Whether the last line before its end was waited for, beyond a gap.
    waited: bool,
}

impl Play<'_> {
    fn play_through(&mut self) {
        for element in self.page.elements() {
            match element {
                Element::Heading => self.end_those_beside(),
                Element::Block(block) => match console::read(self.page, &block) {
                    Some(Ok(Console::Run(commands))) => {
                        for command in commands {
                            self.command(command);
                        }
                    }
                    Some(Err(why)) => self.problem(block.start, why),
                    Some(Ok(Console::NotRun(_))) | None => {}
                },
            }
        }
        self.end_those_beside();
    }

    fn ended(self) -> Played {
        let mut page = self.page.clone();
        let mut seen = self.seen;
        let commands = seen.len();
        seen.sort_by_key(|(command, _)| command.start);
        // From the last to the first, so that the lines before keep their numbers.
        for (command, lines) in seen.iter().rev() {
            let shown =
                if agrees(command, lines) { command.output.clone() } else { updated(&command.output, lines) };
            page.lines.splice(command.start..command.start + command.output.len(), shown);
        }
        let mut problems = self.problems;
        problems.sort_by_key(|problem| {
            problem.place.rsplit_once(':').and_then(|(_, line)| line.parse::<usize>().ok())
        });
        Played { page, problems, commands, time: Duration::ZERO }
    }

    fn command(&mut self, command: Command) {
        if command.text.split(' ').any(|word| word == "kill") {
            for at in 0..self.beside.len() {
                if self.beside[at].command.end == End::Killed {
                    self.wait_for_lines(at, usize::MAX);
                }
            }
        }
        if command.end == End::First {
            self.run(command);
        } else {
            self.start_beside(command);
        }
    }

    /// Runs a command to its end. What `rabbitmqctl` lists may take a while to be true.
    fn run(&mut self, command: Command) {
        let mut deadline = None;
        loop {
            let end = self.start(&command).and_then(|running| running.try_wait(END));
            match end {
                Err(failure) => return self.problem(command.line, format!("$ {}\n{failure}", command.text)),
                Ok(end) => {
                    let lines = self.shown(end.stdout);
                    // On a busy machine the first list alone may take that long.
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + LAG);
                    if is_list(&command) && !agrees(&command, &lines) && Instant::now() < deadline {
                        thread::sleep(Duration::from_millis(200));
                        continue;
                    }
                    return self.compare(command, lines, end.code);
                }
            }
        }
    }

    fn start(&self, command: &Command) -> Result<Running, harness::Failure> {
        let words = command.text.split(' ');
        let variables = words.take_while(|word| word.contains('=') && !word.starts_with(['\'', '"'])).count();
        // In place of the shell, so that the program's number and its end are its own.
        let text = match command.text.splitn(variables + 1, ' ').last() {
            Some(rest) if rest.starts_with("cargo ") && !rest.contains(" | ") => {
                format!("exec env {}", command.text)
            }
            _ => command.text.clone(),
        };
        let script = format!("cd '{}' && exec 2>&1\n{text}", self.folder.path().display());
        Program::new("sh")
            .args(["-c", &script])
            .env("PATH", &self.path)
            .env("AMQP_URL", &self.url)
            .env("RUNNING", &self.running)
            .deadline(PATIENCE)
            .try_start()
    }

    fn start_beside(&mut self, command: Command) {
        match self.start(&command) {
            Err(failure) => self.problem(command.line, failure.to_string()),
            Ok(running) => {
                let ready = command.ready();
                self.beside.push(Beside { command, running, taken: 0, waited: false });
                self.list_those_beside();
                self.wait_for_lines(self.beside.len() - 1, ready);
            }
        }
    }

    fn list_those_beside(&self) {
        let lines = self.beside.iter().map(|beside| {
            format!("{} {}\n", beside.running.pid(), beside.command.program().unwrap_or_default())
        });
        // If it cannot be written, `pgrep` finds nothing, and the page is not as it says.
        let _ = fs::write(&self.running, lines.collect::<String>());
    }

    /// Waits for the first lines of the command's output, or for all that come before its end.
    fn wait_for_lines(&mut self, at: usize, count: usize) {
        let beside = &mut self.beside[at];
        let expected = beside.command.before_its_end();
        let expected = &expected[..count.min(expected.len())];
        let gap = expected.iter().position(|line| line == ANY).unwrap_or(expected.len());
        while beside.taken < gap {
            // What ended too early, or says too little, shows in the comparison.
            if beside.running.try_wait_for_line(Stream::Stdout, |_| true).is_err() {
                return;
            }
            beside.taken += 1;
        }
        if let Some(last) = expected[gap..].last().filter(|line| *line != ANY && !beside.waited) {
            let _ = beside.running.try_wait_for_line(Stream::Stdout, |line| same_line(last, line));
            // A line is waited for once: it may be the last of the first lines and of all.
            beside.waited = count == usize::MAX || expected.len() == beside.command.before_its_end().len();
        }
    }

    /// Waits until those beside have printed what they are to print, and ends them.
    fn end_those_beside(&mut self) {
        for at in 0..self.beside.len() {
            self.wait_for_lines(at, usize::MAX);
        }
        for beside in std::mem::take(&mut self.beside) {
            let printed = beside.running.stdout().len();
            if let End::CtrlC(_) = beside.command.end {
                // If it has ended already, no `^C` is shown, which the comparison finds.
                let pressed = beside.running.try_interrupt().is_ok();
                self.end_beside(beside, pressed.then_some(printed));
            } else {
                self.end_beside(beside, None);
            }
        }
        self.list_those_beside();
    }

    fn end_beside(&mut self, beside: Beside, pressed: Option<usize>) {
        match beside.running.try_wait(END) {
            Err(failure) => {
                self.problem(beside.command.line, format!("$ {}\n{failure}", beside.command.text));
            }
            Ok(end) => {
                let mut lines = self.shown(end.stdout);
                let shows_it = beside.command.output.iter().any(|line| line.contains(FINISHING));
                if let (Some(pressed), false) = (pressed, shows_it)
                    && let Some(at) = lines.iter().skip(pressed).position(|line| line.contains(FINISHING))
                {
                    lines.remove(pressed + at);
                }
                if let Some(at) = pressed {
                    // A terminal shows what comes next in the same line. So may the page, or leave it to the next.
                    let alone = beside.command.output.iter().any(|line| line == CTRL_C);
                    match lines.get_mut(at).filter(|_| !alone) {
                        Some(line) => line.insert_str(0, CTRL_C),
                        None => lines.insert(at.min(lines.len()), CTRL_C.to_owned()),
                    }
                }
                if end.signal == Some(9) {
                    lines.push(KILLED.to_owned());
                }
                self.compare(beside.command, lines, end.code);
            }
        }
    }

    /// The lines as a reader sees them: on a node of the usual name and ports, on the vhost `/`.
    fn shown(&self, lines: Vec<String>) -> Vec<String> {
        lines.into_iter().map(|line| usual(&line, &self.usual)).collect()
    }

    fn compare(&mut self, command: Command, lines: Vec<String>, code: Option<i32>) {
        let failed = lines.iter().any(|line| line.starts_with("error:") || line.starts_with("Error"));
        let killed = lines.last().is_some_and(|line| line == KILLED);
        if !agrees(&command, &lines) {
            let difference = difference(&command.output, &lines);
            self.problem(command.line, format!("$ {} (- the page, + printed)\n{difference}", command.text));
        } else if !killed && (code == Some(0)) == failed {
            let code = code.map_or_else(|| "a signal".to_owned(), |code| format!("exit code {code}"));
            self.problem(command.line, format!("$ {} ended with {code}", command.text));
        }
        self.seen.push((command, lines));
    }

    fn problem(&mut self, line: usize, text: String) {
        self.problems.push(Problem { place: self.page.place(line), text });
    }
}

/// The line with the usual names, and without the colours that `rabbitmqctl` uses even where no terminal is.
fn usual(line: &str, names: &[(String, &str)]) -> String {
    let (mut text, mut rest) = (String::new(), line);
    while let Some((before, code)) = rest.split_once("\u{1b}[") {
        text += before;
        rest = code.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        rest = rest.strip_prefix('m').unwrap_or(rest);
    }
    text += rest;
    names.iter().fold(text, |text, (name, usual)| text.replace(name, usual))
}

/// Whether the output is the one of the page; what `rabbitmqctl` lists, it lists in any order.
fn agrees(command: &Command, lines: &[String]) -> bool {
    if !is_list(command) || command.output.iter().any(|line| line == ANY) {
        return same(&command.output, lines);
    }
    let mut left = lines.to_vec();
    let found = |line: &String| match left.iter().position(|other| same_line(line, other)) {
        Some(at) => {
            left.remove(at);
            true
        }
        None => false,
    };
    command.output.len() == lines.len() && command.output.iter().all(found)
}

fn is_list(command: &Command) -> bool {
    command.text.starts_with("rabbitmqctl ") && command.text.contains(" list_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_with_the_usual_names_and_without_colours() {
        let names = [("test-1-0".to_owned(), "/"), ("t27080@".to_owned(), "rabbit@")];
        assert_eq!(usual("\u{1b}[1mAlarms\u{1b}[0m of t27080@vm", &names), "Alarms of rabbit@vm");
        assert_eq!(usual("in vhost 'test-1-0'", &names), "in vhost '/'");
    }
}
