//! What a test can do to a node of its own: stop it, kill it, pause it, make it short of memory.

use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::node::{Node, Processes, lock};
use crate::vm::Vm;
use crate::wait;

/// Makes Erlang's two ways to keep a table write out what they buffer. RabbitMQ from 4.3 on has the first no more.
const WRITE_OUT: &str = "[ok = mnesia:sync_log() || mnesia:system_info(is_running) =:= yes]
    ++ [ok = dets:sync(Table) || Table <- dets:all()]";

/// Time for the broker to raise or clear an alarm.
const ALARM_LIMIT: Duration = Duration::from_secs(30);

impl Node {
    /// Kills it (SIGKILL), as if the machine had failed, and waits until it is gone. Its data stay. A node
    /// that does not run is left as it is.
    ///
    /// What was declared in the last seconds may be forgotten: see [`Node::write_out`].
    pub fn kill(&self) -> Result<()> {
        let mut processes = self.own("kill")?;
        if let Some(vm) = &mut processes.vm {
            vm.kill();
        }
        processes.forget_vm(self.name())
    }

    /// Makes it write to disk what it holds back for up to 3 s: that a vhost was made, a queue or an exchange declared,
    /// and which files belong to a quorum queue. A test calls this before [`Node::kill`] if what it declared is to survive:
    /// the broker confirms messages in a quorum queue that a crash a second later takes from it.
    pub fn write_out(&self) -> Result<()> {
        self.evaluate(WRITE_OUT).map(drop)
    }

    /// Stops it in an orderly way (SIGTERM) and waits until it is gone: about 1 s, with the management plugin
    /// 6 s on some versions. Its data stay. A node that does not run is left as it is.
    pub fn stop(&self) -> Result<()> {
        let mut processes = self.own("stop")?;
        self.stop_vm(&mut processes)
    }

    fn stop_vm(&self, processes: &mut Processes) -> Result<()> {
        if let Some(vm) = &mut processes.vm
            && vm.exited()?.is_none()
        {
            vm.stop()?;
        }
        processes.forget_vm(self.name())
    }

    /// Starts it again, with the same ports, name and data, and waits until it answers (about 6 s). If it
    /// runs it is stopped in an orderly way first.
    pub fn restart(&self) -> Result<()> {
        self.restart_unless(&AtomicBool::new(false))
    }

    /// The same, but it no longer waits, and fails, once `cancelled` is true.
    pub fn restart_unless(&self, cancelled: &AtomicBool) -> Result<()> {
        let mut processes = self.own("restart")?;
        self.stop_vm(&mut processes)?;
        let Processes { vm, epmd, guard } = &mut *processes;
        *vm = Some(Vm::start(&self.place, guard, &[epmd.id()])?);
        drop(processes);
        self.wait_until_ready(cancelled)
    }

    /// Stops all of its threads where they are (SIGSTOP): connections stay open, and nothing is answered any
    /// more.
    pub fn pause(&self) -> Result<()> {
        self.running_vm("pause", Vm::pause)
    }

    /// Lets a paused node run on.
    pub fn resume(&self) -> Result<()> {
        self.running_vm("resume", Vm::resume)
    }

    fn running_vm(&self, what: &str, change: impl FnOnce(&mut Vm) -> Result<()>) -> Result<()> {
        change(self.own(what)?.vm.as_mut().context("the node does not run")?)
    }

    /// Stops RabbitMQ inside the running Erlang node: connections are closed, the ports refuse (`rabbitmqctl
    /// stop_app`, 1 to 6 s).
    pub fn stop_app(&self) -> Result<()> {
        self.refuse_if_shared("stop_app")?;
        self.rabbitmqctl(&["stop_app"]).map(drop)
    }

    /// Starts RabbitMQ after [`Node::stop_app`] and waits until it answers.
    pub fn start_app(&self) -> Result<()> {
        self.refuse_if_shared("start_app")?;
        self.rabbitmqctl(&["start_app"])?;
        self.wait_until_ready(&AtomicBool::new(false))
    }

    /// Closes all connections of the node with 320 (CONNECTION_FORCED) and `reason`. See
    /// [`Vhost::close_connections`](crate::Vhost::close_connections) for those of one vhost.
    pub fn close_all_connections(&self, reason: &str) -> Result<()> {
        self.refuse_if_shared("close_all_connections")?;
        self.rabbitmqctl(&["close_all_connections", reason]).map(drop)
    }

    /// Makes the broker believe that it is short of memory, so that it blocks every connection that
    /// publishes, or not; waits until the alarm is in force or cleared (about 1 s).
    pub fn memory_alarm(&self, on: bool) -> Result<()> {
        self.refuse_if_shared("memory_alarm")?;
        let fraction = if on { "0.00001" } else { "0.4" };
        self.rabbitmqctl(&["set_vm_memory_high_watermark", fraction])?;
        wait::until(ALARM_LIMIT, "the memory alarm", || {
            let alarmed = self
                .evaluate("[] =/= [on || {{resource_limit, memory, _}, _} <- rabbit_alarm:get_alarms()]")?;
            Ok((alarmed == on).then_some(()))
        })
    }

    fn refuse_if_shared(&self, what: &str) -> Result<()> {
        ensure!(
            !self.shared,
            "{what} would disturb the other tests on this shared node; a test that does so starts its own with \
             broker::Node::start()"
        );
        Ok(())
    }

    fn own(&self, what: &str) -> Result<MutexGuard<'_, Processes>> {
        self.refuse_if_shared(what)?;
        self.processes.as_ref().map(lock).with_context(|| format!("{what}: another process runs this node"))
    }
}

impl Processes {
    /// After the virtual machine ended: nothing is left of it for the guard and for epmd.
    fn forget_vm(&mut self, name: &str) -> Result<()> {
        self.vm = None;
        self.guard.watch(&[self.epmd.id()])?;
        self.epmd.wait_until_forgotten(name)
    }
}
