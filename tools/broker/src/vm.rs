//! The processes of a node: started so that none outlives this program, and ended.

use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::guard::Guard;
use crate::place::Place;
use crate::wait;

/// Time for an orderly stop, and for a signal to take effect.
const STOP_LIMIT: Duration = Duration::from_secs(60);

/// Starts `command` in a process group of its own, so that Ctrl-C in a terminal does not reach it, with its
/// output added to the node's file. Its input is a pipe that only this program holds: it ends with this
/// program.
pub(crate) fn run_tied(command: &mut Command, place: &Place) -> Result<(Child, ChildStdin)> {
    let path = place.file("output");
    let output = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let program = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    // Taken, because `Child::wait` closes what it finds there before it waits.
    let input = child.stdin.take().context("no pipe to the child's input")?;
    Ok((child, input))
}

/// Kills a child and everything in its group, and waits for its end.
pub(crate) fn end(child: &mut Child) {
    // Once the child is reaped its id may belong to another process.
    if matches!(child.try_wait(), Ok(None)) {
        let _ = killpg(pid(child), Signal::SIGKILL);
        let _ = child.kill();
    }
    let _ = child.wait();
}

/// The Erlang virtual machine of a node.
#[derive(Debug)]
pub(crate) struct Vm {
    child: Child,
    /// Held, never written: its end ends the node.
    _input: ChildStdin,
    paused: bool,
}

impl Vm {
    /// Starts the server of `place` and tells the guard; `others` are the processes that are there already.
    pub(crate) fn start(place: &Place, guard: &mut Guard, others: &[u32]) -> Result<Vm> {
        let mut command = place.command(&place.server.program);
        command.envs(place.server_variables());
        let (child, input) = run_tied(&mut command, place)?;
        let vm = Vm { child, _input: input, paused: false };
        guard.watch(&[others, &[vm.child.id()]].concat())?;
        Ok(vm)
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn exited(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Whether it is stopped by [`Vm::pause`].
    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Kills it, without a chance to write anything, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        end(&mut self.child);
    }

    /// Asks it to stop in an orderly way and waits until it has.
    pub(crate) fn stop(&mut self) -> Result<()> {
        if self.paused {
            self.resume()?;
        }
        self.signal(Signal::SIGTERM)?;
        wait::until(STOP_LIMIT, "the node to stop", || self.exited())?;
        Ok(())
    }

    /// Stops all of its threads where they are, and waits until they stand still.
    pub(crate) fn pause(&mut self) -> Result<()> {
        self.signal(Signal::SIGSTOP)?;
        self.paused = true;
        self.wait_until_paused()
    }

    /// Lets it run on.
    pub(crate) fn resume(&mut self) -> Result<()> {
        self.signal(Signal::SIGCONT)?;
        self.paused = false;
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn wait_until_paused(&mut self) -> Result<()> {
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
        let pid = pid(&self.child);
        // Without WEXITED: an exit stays for `Child` to see.
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
        wait::until(STOP_LIMIT, "the node to pause", || match waitid(Id::Pid(pid), flags)? {
            WaitStatus::StillAlive => Ok(None),
            _ => Ok(Some(())),
        })
    }

    #[cfg(not(target_os = "linux"))]
    fn wait_until_paused(&mut self) -> Result<()> {
        Ok(())
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        if let Some(status) = self.exited()? {
            bail!("the node does not run ({status})");
        }
        kill(pid(&self.child), signal).with_context(|| format!("cannot send {signal} to the node"))
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.kill();
    }
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}
