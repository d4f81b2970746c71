//! A TCP relay between a client and a broker that breaks the network on command.

mod link;
mod operator;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{io, thread};

use socket2::{Domain, Socket, Type};

use operator::{Command, Operator, Order};

/// The way that bytes take through a [`Relay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the broker.
    ToBroker,
    /// From the broker to the client.
    ToClient,
    /// Both.
    Both,
}

/// Forwards connections on a free port of 127.0.0.1 to a broker on this machine, until told otherwise.
///
/// When a method returns, its effect has taken place. Dropping a relay resets its connections and ends
/// its thread.
///
/// A broker that cannot be connected to shows as a connection that is accepted and reset at once.
pub struct Relay {
    address: SocketAddr,
    /// Ends the operator's wait; a byte on it announces an order.
    bell: UnixStream,
    orders: mpsc::Sender<Order>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
    /// Holds the port while the relay refuses: without it, the port could become another program's.
    _reservation: Socket,
}

/// What a relay has counted, for whoever waits for it.
#[derive(Default)]
struct Counts {
    now: Mutex<Count>,
    changed: Condvar,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    open: usize,
    accepted: usize,
}

impl Counts {
    fn set(&self, count: Count) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = count;
        self.changed.notify_all();
    }

    fn get(&self) -> Count {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the condition holds; `false` when the deadline passed first.
    fn wait(&self, deadline: Duration, holds: impl Fn(Count) -> bool) -> bool {
        let deadline = Instant::now() + deadline;
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        while !holds(*now) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            now = self.changed.wait_timeout(now, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

impl Relay {
    /// Starts a relay to the broker at this address.
    pub fn start(broker: impl ToSocketAddrs) -> io::Result<Self> {
        let broker = broker.to_socket_addrs()?.next().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let reservation = reserve((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = reservation.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        let (bell, rung) = UnixStream::pair()?;
        let (orders, inbox) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let operator = Operator::new(address, broker, rung, inbox, Arc::clone(&counts))?;
        let thread =
            thread::Builder::new().name(format!("relay {}", address.port())).spawn(move || operator.run())?;
        Ok(Self { address, bell, orders, counts, thread: Some(thread), _reservation: reservation })
    }

    /// The port that clients connect to.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The address that clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Resets every connection, both ways; new ones are accepted again at once.
    #[track_caller]
    pub fn cut(&self) {
        self.order(Command::Cut);
    }

    /// Ends every connection in good order, both ways, as a peer that says goodbye does.
    #[track_caller]
    pub fn close(&self) {
        self.order(Command::Close);
    }

    /// Refuses new connections, or accepts them again on the same port. Connections that stand are not touched.
    #[track_caller]
    pub fn refuse(&self, refuse: bool) {
        self.order(Command::Refuse(refuse));
    }

    /// Forwards nothing in this direction, or goes on and delivers what has waited. Connections that stand
    /// stay open and new ones are accepted; not even the end of a connection is passed on.
    #[track_caller]
    pub fn silence(&self, direction: Direction, silent: bool) {
        self.order(Command::Silence(direction, silent));
    }

    /// Delivers what arrives from now on this much later, each way.
    #[track_caller]
    pub fn delay(&self, delay: Duration) {
        self.order(Command::Delay(delay));
    }

    /// How many connections are open now.
    pub fn connections(&self) -> usize {
        self.counts.get().open
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> usize {
        self.counts.get().accepted
    }

    /// Waits until exactly this many connections are open.
    ///
    /// # Panics
    /// When the deadline passes first.
    #[track_caller]
    pub fn wait_for_connections(&self, open: usize, deadline: Duration) {
        if !self.counts.wait(deadline, |count| count.open == open) {
            panic!("waited {deadline:?} for {open} open connections, {}", self.describe());
        }
    }

    /// Waits until at least this many connections were accepted since the start.
    ///
    /// # Panics
    /// When the deadline passes first.
    #[track_caller]
    pub fn wait_for_accepted(&self, accepted: usize, deadline: Duration) {
        if !self.counts.wait(deadline, |count| count.accepted >= accepted) {
            panic!("waited {deadline:?} for {accepted} accepted connections, {}", self.describe());
        }
    }

    fn describe(&self) -> String {
        let Count { open, accepted } = self.counts.get();
        format!("got {open} open, {accepted} accepted so far")
    }

    #[track_caller]
    fn order(&self, command: Command) {
        let (done, reply) = mpsc::channel();
        let sent = self.orders.send(Order { command, done }).is_ok() && (&self.bell).write_all(b"!").is_ok();
        assert!(sent, "the relay's thread is gone");
        match reply.recv_timeout(Duration::from_secs(10)) {
            Ok(Ok(())) => {}
            Ok(Err(e)) => panic!("the relay on port {}: {e}", self.port()),
            Err(e) => panic!("the relay's thread does not answer: {e}"),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The end of this stream ends the operator.
        let _ = self.bell.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A socket that is bound, but not yet listening. Several may be bound to one port while at most one listens.
fn reserve(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    // Only Linux lets a reserved and a listening socket share a port without this.
    #[cfg(not(target_os = "linux"))]
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
