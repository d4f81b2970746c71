//! What the tests look with.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use broker::Node;
use tempfile::NamedTempFile;

/// Longer than a node may take to start.
const LIMIT: Duration = Duration::from_secs(100);

/// Waits until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !condition()? {
        if Instant::now() > deadline {
            bail!("waited for {what} in vain");
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Whether a broker answers at the AMQP port of `node`.
pub(crate) fn answers(node: &Node) -> bool {
    broker::speaks_amqp(("127.0.0.1", node.port()), Duration::from_secs(3))
}

/// A program whose standard output is read line by line.
pub(crate) struct Program {
    child: Child,
    lines: Receiver<String>,
    errors: NamedTempFile,
}

impl Program {
    pub(crate) fn start(command: &mut Command) -> Result<Program> {
        let errors = NamedTempFile::new()?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors.reopen()?);
        let mut child = command.spawn()?;
        let output = BufReader::new(child.stdout.take().context("no pipe")?);
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Program { child, lines, errors })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    fn line(&self) -> Result<String> {
        self.lines.recv_timeout(LIMIT).with_context(|| {
            let errors = fs::read_to_string(self.errors.path()).unwrap_or_default();
            format!("on standard error it wrote {errors:?}")
        })
    }

    /// Waits for the line that is `last`; all until then.
    pub(crate) fn lines_until(&self, last: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line| line != last) {
            lines.push(self.line().with_context(|| format!("no line {last:?}"))?);
        }
        Ok(lines)
    }

    /// Waits for a line that contains `text`.
    pub(crate) fn line_with(&self, text: &str) -> Result<String> {
        loop {
            let line = self.line().with_context(|| format!("no line with {text:?}"))?;
            if line.contains(text) {
                return Ok(line);
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) -> Result<()> {
        signal(self.id(), name)
    }

    /// Waits for its end and returns what it wrote to standard error.
    pub(crate) fn end(mut self) -> Result<(ExitStatus, String)> {
        let mut status = None;
        until("the program to end", || {
            status = self.child.try_wait()?;
            Ok(status.is_some())
        })?;
        Ok((status.context("no status")?, fs::read_to_string(self.errors.path())?))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal.
pub(crate) fn signal(pid: u32, name: &str) -> Result<()> {
    let status =
        Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name]).arg(pid.to_string()).status()?;
    if !status.success() {
        bail!("cannot send {name} to {pid}");
    }
    Ok(())
}

/// The directory of a node, from the line for `rabbitmqctl`.
pub(crate) fn directory(rabbitmqctl: &str) -> Result<PathBuf> {
    let home = rabbitmqctl.split(' ').find_map(|word| word.strip_prefix("HOME=")).context("no HOME")?;
    Ok(home.into())
}

/// The running processes that were started for the node in `directory`: its name is in the environment of
/// each, in the arguments of the watcher.
pub(crate) fn processes(directory: &Path) -> Result<Vec<u32>> {
    let text = directory.to_str().context("not UTF-8")?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let holds = |file: &str| {
            fs::read(entry.path().join(file))
                .is_ok_and(|content| String::from_utf8_lossy(&content).contains(text))
        };
        if holds("environ") || holds("cmdline") {
            found.push(pid);
        }
    }
    Ok(found)
}

/// The one among them that is the Erlang virtual machine.
pub(crate) fn virtual_machine(directory: &Path) -> Result<u32> {
    let is_vm = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "beam.smp")
    };
    processes(directory)?.into_iter().find(is_vm).context("no beam.smp")
}

/// Waits until no process of the node in `directory` is left, nor the directory.
pub(crate) fn until_nothing_is_left(directory: &Path) -> Result<()> {
    until("the processes to end and the directory to go", || {
        Ok(processes(directory)?.is_empty() && !directory.exists())
    })
}

/// The addresses on which `pids` listen, as the kernel writes them (`0100007F:1F90` is 127.0.0.1:8080).
pub(crate) fn listeners(pids: &[u32]) -> Result<Vec<String>> {
    let mut sockets = HashSet::new();
    for pid in pids {
        // A helper may have ended since it was seen.
        for file in fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten() {
            if let Ok(target) = fs::read_link(file.path()) {
                sockets.insert(target.to_string_lossy().into_owned());
            }
        }
    }
    let mut found = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<_> = line.split_whitespace().collect();
            let [_, local, _, state, _, _, _, _, _, inode, ..] = fields[..] else {
                bail!("{table}: {line}");
            };
            // 0A: listening.
            if state == "0A" && sockets.contains(&format!("socket:[{inode}]")) {
                found.push(local.to_owned());
            }
        }
    }
    Ok(found)
}
