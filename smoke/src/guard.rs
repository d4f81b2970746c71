//! A second process that deletes what would stay, should this one be killed.
//!
//! RabbitMQ knows no expiry for streams, nor, before 3.10, for quorum queues; and an auto-delete exchange stays
//! if its maker dies before anything is bound to it.

use std::cell::RefCell;
use std::env;
use std::io::{self, BufRead, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use shared::{Connection, ConnectionArgs, Result, Shutdown};
use tokio::time::sleep;

use crate::names::{Name, delete};

/// The option by which this program becomes a guard.
pub(crate) const OPTION: &str = "guard";

/// When the guard comes to delete, a declaration may still be on its way, and take its time on a busy broker. So
/// it comes again after these pauses.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::ZERO];

/// What begins a line about a name that is to be deleted.
const OVER: &str = "over ";

/// What begins a line about a name that is gone.
const GONE: &str = "gone ";

/// The line by which the guard is sent away.
const RELEASED: &str = "released";

/// Starts with the first name that it is to watch over. When this is dropped without a release, as when the
/// process is killed, the guard deletes what it watches over.
#[derive(Default)]
pub(crate) struct Guard(RefCell<Option<Child>>);

impl Guard {
    /// Tells the guard to watch over a name, before there is anything of that name.
    ///
    /// # Errors
    /// If no process can be started, or the one that was started is gone.
    pub(crate) fn over(&self, name: &Name) -> io::Result<()> {
        let mut child = self.0.borrow_mut();
        let child = match &mut *child {
            Some(child) => child,
            none => none.insert(start()?),
        };
        tell(child, &format!("{OVER}{name}"))
    }

    /// Tells the guard, if there is one, that these are gone.
    pub(crate) fn forget(&self, names: &[Name]) {
        if let Some(child) = &mut *self.0.borrow_mut() {
            for name in names {
                // A guard that has gone has nothing to forget.
                let _ = tell(child, &format!("{GONE}{name}"));
            }
        }
    }

    /// Sends the guard away: the run is over, and what is left was told to its user.
    pub(crate) fn release(&self) {
        if let Some(mut child) = self.0.borrow_mut().take() {
            let _ = tell(&mut child, RELEASED);
            let _ = child.wait();
        }
    }
}

/// This very program, with the same options and one more.
fn start() -> io::Result<Child> {
    let mut command = Command::new(this_program()?);
    command.args(env::args_os().skip(1)).arg(format!("--{OPTION}"));
    // A signal to all processes of a terminal is not for the guard.
    #[cfg(unix)]
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()
}

/// On Linux by a name that holds even when the file was replaced meanwhile, as an upgrade does.
fn this_program() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { env::current_exe() }
}

fn tell(child: &mut Child, line: &str) -> io::Result<()> {
    match &mut child.stdin {
        Some(stdin) => stdin.write_all(format!("{line}\n").as_bytes()),
        None => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

/// The guard itself: listens until it is released, or until its input ends and it has something to do.
///
/// # Errors
/// If the broker cannot be reached.
pub(crate) async fn watch_over(args: &ConnectionArgs, shutdown: &Shutdown) -> Result<()> {
    // Nothing else runs in this process, so it may wait for lines.
    let Some(names) = listen(io::stdin().lock()) else { return Ok(()) };
    if names.is_empty() {
        return Ok(());
    }
    let connection = Connection::open(args, "smoke guard", shutdown).await?;
    let mut deleted = Ok(());
    for pause in PAUSES {
        deleted = delete(&connection, &names).await;
        sleep(pause).await;
    }
    deleted
}

/// What is to be deleted when the input ends; `None` after a release.
fn listen(input: impl BufRead) -> Option<Vec<Name>> {
    let mut names = Vec::new();
    // An input that cannot be read has ended as well.
    for line in input.lines().map_while(io::Result::ok) {
        if line == RELEASED {
            return None;
        }
        if let Some(name) = line.strip_prefix(OVER).and_then(Name::read) {
            names.push(name);
        } else if let Some(name) = line.strip_prefix(GONE).and_then(Name::read) {
            names.retain(|other| *other != name);
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_gone_is_deleted_unless_the_guard_is_released() {
        let (queue, exchange) = (Name::Queue("a b".to_owned()), Name::Exchange("c".to_owned()));
        let over = format!("{OVER}{queue}\n{OVER}{exchange}\n");
        assert_eq!(listen(over.as_bytes()), Some(vec![queue.clone(), exchange.clone()]));
        assert_eq!(listen(format!("{over}{GONE}{queue}\n").as_bytes()), Some(vec![exchange]));
        assert_eq!(listen(format!("{over}{RELEASED}\n").as_bytes()), None);
        assert_eq!(listen(&b"\n"[..]), Some(Vec::new()));
    }
}
