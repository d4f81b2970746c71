//! A second process that deletes a queue which cannot expire, should this one be killed.
//!
//! RabbitMQ has no `x-expires` for streams, nor, before 3.10, for quorum queues.

use std::env;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use lapin::options::QueueDeleteOptions;
use shared::{Connection, ConnectionArgs, Result, Shutdown};
use tokio::time::sleep;

/// The option by which this program becomes a guard.
pub(crate) const OPTION: &str = "guard";

/// When the guard comes to delete, a declaration may still be on its way, and take its time on a busy broker. So
/// it comes again after these pauses.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::ZERO];

/// Watches over one queue, until it is released. When this is dropped, the queue is deleted as well.
pub(crate) struct Guard(Option<Child>);

impl Guard {
    /// Nothing has to be watched over.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Starts the guard: this very program, with the same options and one more.
    ///
    /// # Errors
    /// If no process can be started.
    pub(crate) fn over(queue: &str) -> io::Result<Self> {
        let mut command = Command::new(this_program()?);
        command.args(env::args_os().skip(1)).arg(format!("--{OPTION}={queue}"));
        // A signal to all processes of a terminal is not for the guard.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().map(Some).map(Self)
    }

    /// Sends the guard away: the queue is deleted.
    pub(crate) fn release(mut self) {
        if let Some(mut child) = self.0.take() {
            // An error means that it has gone already.
            let _ = child.stdin.take().map(|mut stdin| stdin.write_all(b"."));
            let _ = child.wait();
        }
    }
}

/// On Linux by a name that holds even when the file was replaced meanwhile, as an upgrade does.
fn this_program() -> io::Result<PathBuf> {
    let running = Path::new("/proc/self/exe");
    if running.exists() { Ok(running.to_owned()) } else { env::current_exe() }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            drop(child.stdin.take());
            thread::spawn(move || child.wait());
        }
    }
}

/// The guard itself: waits for the end of its input and deletes the queue, unless it was sent away before.
///
/// # Errors
/// If the broker cannot be reached.
pub(crate) async fn watch_over(queue: &str, args: &ConnectionArgs, shutdown: &Shutdown) -> Result<()> {
    // Nothing else runs in this process.
    if !matches!(io::stdin().read(&mut [0]), Ok(0)) {
        return Ok(());
    }
    let connection = Connection::open(args, "smoke guard", shutdown).await?;
    let mut deleted = Ok(0);
    for pause in PAUSES {
        let delete = connection.session(async |session| {
            queue_lifecycle::delete(&session.channel, queue, QueueDeleteOptions::default()).await
        });
        deleted = delete.await;
        sleep(pause).await;
    }
    deleted.map(drop)
}
