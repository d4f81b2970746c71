//! `cargo xtask pictures`: the management page while the patterns run, for its page in `docs`.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

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
const CONSUMERS: [(&str, &[&str]); 7] = [
    ("worker", &[]),
    ("worker", &[]),
    ("receive_logs", &[]),
    ("receive_logs", &[]),
    ("receive_logs_direct", &["info", "warn"]),
    ("rpc_server", &[]),
    ("keeper", &["--quiet", "--workers", "2", "--work", "20ms"]),
];

/// Programs that send; the tasks take longer than the pictures do.
const PRODUCERS: [(&str, &[&str]); 3] =
    [("striker", &["--quiet", "--rate", "80"]), ("delay_producer", &["--delay", "5m,10m"]), ("sender", &[])];

/// Time for the tasks to be sent.
const LIMIT: Duration = Duration::from_secs(60);

/// How many tasks there are, and what they say: a dot is a second of work.
const TASKS: (usize, &str) = (12, "slow....................................................");

/// A view of the management page.
struct View {
    /// The file's name.
    name: &'static str,
    /// The part of the address behind `#/`.
    path: &'static str,
    /// What must be there to be seen.
    shows: &'static [&'static str],
    /// The heading of the section that is taken, unfolded if need be; `None` for the table that the page is about.
    section: Option<&'static str>,
    /// No higher than this, in pixels.
    height: f64,
}

const VIEWS: [View; 6] = [
    View {
        name: "connections",
        path: "connections",
        shows: &["striker", "rpc_server requests"],
        section: None,
        height: 480.0,
    },
    View { name: "channels", path: "channels", shows: &["Unacked"], section: None, height: 480.0 },
    View {
        name: "queues",
        path: "queues",
        shows: &["casillas", "task_queue", "rpc_queue"],
        section: None,
        height: 480.0,
    },
    View {
        name: "rates",
        path: "queues/%2F/casillas",
        shows: &["Deliver"],
        section: Some("Overview"),
        height: 352.0,
    },
    View {
        name: "consumers",
        path: "queues/%2F/task_queue",
        shows: &["Consumers (2)"],
        section: Some("Consumers"),
        height: 480.0,
    },
    View {
        name: "bindings",
        path: "exchanges/%2F/logs_direct",
        shows: &["Exchange: logs_direct"],
        section: Some("Bindings"),
        height: 480.0,
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
    let mut tasks = 0;
    let end = Instant::now() + LIMIT;
    while tasks < TASKS.0 {
        // A quorum queue that is a moment old may still refuse.
        let sent = start("task", &[TASKS.1])?.try_wait(LIMIT)?;
        tasks += usize::from(sent.code == Some(0));
        ensure!(Instant::now() < end, "{sent}");
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
    for words in view.shows {
        browser.wait_for(&format!("document.querySelector('#main').innerText.includes({words:?})"))?;
    }
    // The head of the page lies over its content, and names the machine; shades of grey make the files larger.
    browser.evaluate(
        "for (const part of document.querySelectorAll('body *')) {
             if (getComputedStyle(part).position === 'fixed') part.style.display = 'none';
         }
         for (const cell of document.querySelectorAll('#main td')) cell.style.background = 'white';
         true",
    )?;
    let element = match view.section {
        None => "document.querySelector('#main table.list')".to_owned(),
        Some(heading) => {
            let section = format!(
                "[...document.querySelectorAll('#main h2')].find(h => h.innerText.trim().startsWith({heading:?})).parentElement"
            );
            browser.evaluate(&format!(
                "{{ const section = {section};
                    if (section.querySelector('.hider').offsetHeight == 0) section.querySelector('h2').click(); }} true"
            ))?;
            browser.wait_for(&format!("{section}.querySelector('.hider').offsetHeight > 50"))?;
            // It unfolds slowly.
            std::thread::sleep(Duration::from_secs(1));
            section
        }
    };
    browser.picture(&element, view.height)
}
