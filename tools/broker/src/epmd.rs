//! The private name service (epmd) of a node.
//!
//! RabbitMQ cannot do without epmd, and one that RabbitMQ starts itself stays behind as a daemon. So every
//! node gets one in the foreground, on its own port, which ends after the node.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::guard::Guard;
use crate::place::Place;
use crate::vm::{end, run_tied};
use crate::wait;

/// Time for epmd to listen, and to forget a node whose connection broke.
const LIMIT: Duration = Duration::from_secs(10);

/// Time for one answer. Another program that has the port may give none.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// A running name service. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Epmd {
    child: Child,
    port: u16,
}

impl Epmd {
    /// Starts one for `place` and waits until it answers. `Ok(None)` says that its port was taken meanwhile.
    pub(crate) fn start(place: &Place, guard: &mut Guard) -> Result<Option<Epmd>> {
        let port = place.ports.epmd;
        let mut command = place.command("sh");
        command
            // Waits for a line first: should this program be killed before the guard knows the process id,
            // the shell reads the end of its input and ends instead of starting epmd.
            .args(["-c", r#"read -r _ && exec epmd -port "$0" -address 127.0.0.1"#])
            .arg(port.to_string());
        let (child, mut input) = run_tied(&mut command, place)?;
        let mut epmd = Epmd { child, port };
        guard.watch(&[epmd.id()])?;
        input.write_all(b"start\n").context("cannot start epmd")?;
        let answers = wait::until(LIMIT, "epmd to answer", || {
            if let Some(status) = epmd.child.try_wait()? {
                if status.code() == Some(127) {
                    bail!("epmd, a part of Erlang, is not on the PATH");
                }
                return Ok(Some(false));
            }
            Ok(epmd.names().is_ok().then_some(true))
        });
        // An answer may come from the process that has the port, while ours is about to find out.
        let up = answers? && epmd.child.try_wait()?.is_none();
        Ok(up.then_some(epmd))
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until no node called `name` is registered.
    pub(crate) fn wait_until_forgotten(&self, name: &str) -> Result<()> {
        let line = format!("name {} at port ", name.split('@').next().unwrap_or(name));
        wait::until(LIMIT, "epmd to forget the node", || {
            let forgotten = |names: String| !names.lines().any(|found| found.starts_with(&line));
            Ok(self.names().is_ok_and(forgotten).then_some(()))
        })
    }

    /// The list of registered nodes, as text (request NAMES_REQ of the protocol of epmd).
    fn names(&self) -> Result<String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let mut stream = TcpStream::connect_timeout(&address, ANSWER_LIMIT)?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(&[0, 1, b'n'])?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        match reply.split_first_chunk() {
            Some((port, names)) if u32::from_be_bytes(*port) == u32::from(self.port) => {
                Ok(String::from_utf8_lossy(names).into_owned())
            }
            _ => bail!("what listens on port {} is not the epmd of the node", self.port),
        }
    }
}

impl Drop for Epmd {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}
