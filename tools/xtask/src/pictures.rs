//! `cargo xtask pictures`: the management page while the patterns run, for its page in `docs`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use broker::Node;
use harness::{Program, Running};

use crate::browser::Browser;
use crate::programs::Programs;
use crate::say::say;
use crate::workspace;

/// Where the pictures are.
const FOLDER: &str = "docs/pictures";

/// The size of the page: narrow enough to be read where a page of documentation shows it.
const SIZE: (u32, u32) = (1040, 900);

/// No picture is larger, in bytes: the repository keeps every version of them.
const LARGEST: usize = 60_000;

/// Packages with the programs that are at work.
const PACKAGES: [&str; 7] =
    ["delayed-dlx", "hello", "pubsub-fanout", "routing-direct", "rpc", "striker-keeper", "work-queues"];

/// Programs that stay, with the line that says that they are ready, if they say one.
const CONSUMERS: [(&str, &[&str]); 8] = [
    ("worker", &[]),
    ("worker", &[]),
    ("receive_logs", &[]),
    ("receive_logs", &[]),
    ("receive_logs_direct", &["info", "warn"]),
    ("receive_logs_direct", &["error"]),
    ("rpc_server", &[]),
    ("keeper", &["--quiet", "--workers", "2", "--work", "20ms"]),
];

/// Programs that send; the tasks take longer than the pictures do.
const PRODUCERS: [(&str, &[&str]); 3] =
    [("striker", &["--quiet", "--rate", "80"]), ("delay_producer", &["--delay", "5m,10m"]), ("sender", &[])];

/// How many tasks there are, and what they say: a dot is a second of work.
const TASKS: (usize, &str) = (12, "slow....................................................");

/// A view of the management page.
struct View {
    /// The file's name.
    name: &'static str,
    /// The part of the address behind `#/`.
    path: &'static str,
    /// The heading of each section that is to be open, or closed, before the picture is taken.
    toggle: &'static [&'static str],
    /// JavaScript that is true once what is to be seen is there.
    shows: &'static str,
    /// Pixels, from the top of the main part.
    height: f64,
}

const VIEWS: [View; 5] = [
    View {
        name: "connections",
        path: "connections",
        toggle: &[],
        shows: "document.querySelectorAll('#main table.list tbody tr').length >= 9",
        height: 480.0,
    },
    View {
        name: "channels",
        path: "channels",
        toggle: &[],
        shows: "document.querySelectorAll('#main table.list tbody tr').length >= 9",
        height: 480.0,
    },
    View {
        name: "queues",
        path: "queues",
        toggle: &[],
        shows: "document.querySelectorAll('#main table.list tbody tr').length >= 9",
        height: 480.0,
    },
    View {
        name: "task_queue",
        path: "queues/%2F/task_queue",
        toggle: &[],
        shows: "document.querySelectorAll('#main svg, #main canvas').length >= 1",
        height: 800.0,
    },
    View {
        name: "logs_direct",
        path: "exchanges/%2F/logs_direct",
        toggle: &[],
        shows: "document.body.innerText.includes('logs_direct')",
        height: 800.0,
    },
];

/// Takes all pictures anew.
pub(crate) fn pictures() -> Result<ExitCode> {
    workspace::enter()?;
    let mut browser = Browser::start(SIZE.0, SIZE.1)?;
    let programs = Programs::build(&PACKAGES)?;
    say!("$ rabbitmq-server (private node)");
    let node = Node::start()?;
    let start = |name: &str, args: &[&str]| -> Result<Running> {
        let program = Program::new(&programs.get(name)?.path).args(args).env("AMQP_URL", node.url());
        Ok(program.try_start()?)
    };
    let mut running = Vec::new();
    for (name, args) in CONSUMERS.into_iter().chain(PRODUCERS) {
        running.push(start(name, args)?);
    }
    for _ in 0..TASKS.0 {
        let end = start("task", &[TASKS.1])?.try_wait(Duration::from_secs(30))?;
        ensure!(end.code == Some(0), "{end}");
    }
    log_in(&mut browser, &node.management_url())?;
    // The charts cover a minute.
    std::thread::sleep(Duration::from_secs(45));
    fs::create_dir_all(FOLDER).with_context(|| format!("cannot make {FOLDER}"))?;
    for view in &VIEWS {
        let picture = take(&mut browser, view).with_context(|| view.name)?;
        let file = Path::new(FOLDER).join(view.name).with_extension("png");
        ensure!(picture.len() <= LARGEST, "{}: {} bytes are too many", file.display(), picture.len());
        fs::write(&file, &picture).with_context(|| format!("cannot write {}", file.display()))?;
        say!("{} ({} kB)", file.display(), picture.len() / 1000);
    }
    Ok(ExitCode::SUCCESS)
}

fn log_in(browser: &mut Browser, url: &str) -> Result<()> {
    browser.go(url)?;
    browser.wait_for("document.querySelector('input[name=username]') != null")?;
    browser.evaluate(
        "document.querySelector('input[name=username]').value = 'guest';
         document.querySelector('input[name=password]').value = 'guest';
         document.querySelector('form input[type=submit]').click(); true",
    )?;
    browser.wait_for("document.querySelector('#main h1') != null")
}

fn take(browser: &mut Browser, view: &View) -> Result<Vec<u8>> {
    browser.evaluate(&format!("location.hash = '#/{}'; true", view.path))?;
    browser.wait_for(view.shows)?;
    for heading in view.toggle {
        browser.evaluate(&format!(
            "[...document.querySelectorAll('#main h2')].find(h => h.innerText.trim().startsWith({heading:?})).click(); true"
        ))?;
    }
    // Sections unfold.
    std::thread::sleep(Duration::from_secs(2));
    browser.picture("#main", view.height)
}
