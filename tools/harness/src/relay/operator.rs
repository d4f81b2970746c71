//! The relay's only thread: waits for whatever can go on, lets it go on, and obeys orders in between.

use std::io;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::link::{Link, Step, reset};
use super::{Count, Counts, Direction, reserve};

/// The broker is on this machine, where a connection takes no time or is refused at once.
const CONNECT: Duration = Duration::from_secs(1);

pub(super) enum Command {
    Cut,
    Close,
    Refuse(bool),
    Silence(Direction, bool),
    Delay(Duration),
}

pub(super) struct Order {
    pub(super) command: Command,
    pub(super) done: mpsc::Sender<io::Result<()>>,
}

pub(super) struct Operator {
    address: SocketAddr,
    broker: SocketAddr,
    listener: Option<TcpListener>,
    links: Vec<Link>,
    rung: UnixStream,
    inbox: mpsc::Receiver<Order>,
    counts: Arc<Counts>,
    accepted: usize,
    silent: [bool; 2],
    delay: Duration,
}

/// What a descriptor in the poll set stands for.
#[derive(Clone, Copy)]
enum Source {
    Bell,
    Listener,
    Link(usize, Step),
}

impl Operator {
    pub(super) fn new(
        address: SocketAddr,
        broker: SocketAddr,
        rung: UnixStream,
        inbox: mpsc::Receiver<Order>,
        counts: Arc<Counts>,
    ) -> io::Result<Self> {
        rung.set_nonblocking(true)?;
        Ok(Self {
            address,
            broker,
            listener: Some(listen(address)?),
            links: Vec::new(),
            rung,
            inbox,
            counts,
            accepted: 0,
            silent: [false; 2],
            delay: Duration::ZERO,
        })
    }

    pub(super) fn run(mut self) {
        // A failed poll (too many descriptors) leaves nothing to go on with: whoever orders next is told.
        while let Ok(ready) = self.wait() {
            for source in ready {
                match source {
                    Source::Bell if self.obey().is_err() => return,
                    // What was ready before an order may be against it.
                    Source::Bell => break,
                    Source::Listener => self.accept(),
                    Source::Link(at, step) => self.links[at].step(step, self.delay),
                }
            }
            self.links.retain(|link| !link.is_over());
            self.count();
        }
    }

    /// Waits until something can go on. Only what can go on is asked for: a descriptor that broke while
    /// its direction is silent would otherwise end every wait at once.
    fn wait(&self) -> nix::Result<Vec<Source>> {
        let now = Instant::now();
        let mut due = None;
        let mut sources = vec![Source::Bell];
        let mut fds = vec![PollFd::new(self.rung.as_fd(), PollFlags::POLLIN)];
        if let Some(listener) = &self.listener {
            sources.push(Source::Listener);
            fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        for (at, link) in self.links.iter().enumerate() {
            for (step, fd) in link.steps(self.silent, now, &mut due) {
                sources.push(Source::Link(at, step));
                fds.push(PollFd::new(fd, step.event()));
            }
        }
        loop {
            match poll(&mut fds, timeout(due)) {
                Err(nix::Error::EINTR) => {}
                Err(e) => return Err(e),
                Ok(_) => break,
            }
        }
        // Errors and hang-ups come unasked: the step then fails and says which it was.
        let ready = |fd: &PollFd<'_>| fd.any().unwrap_or(true);
        Ok(sources.into_iter().zip(&fds).filter(|(_, fd)| ready(fd)).map(|(source, _)| source).collect())
    }

    /// Carries out all orders; an error when the relay was dropped.
    fn obey(&mut self) -> io::Result<()> {
        // More bytes than these belong to orders that the next round finds, or to none.
        if self.rung.read(&mut [0; 64])? == 0 {
            self.links.iter_mut().for_each(Link::cut);
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        while let Ok(Order { command, done }) = self.inbox.try_recv() {
            let result = self.carry_out(command);
            self.count();
            // The one who ordered may have given up waiting.
            let _ = done.send(result);
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command) -> io::Result<()> {
        match command {
            Command::Cut => self.links.iter_mut().for_each(Link::cut),
            Command::Close => self.links.iter_mut().for_each(Link::close),
            Command::Refuse(true) => self.listener = None,
            Command::Refuse(false) if self.listener.is_none() => self.listener = Some(listen(self.address)?),
            Command::Refuse(false) => {}
            Command::Silence(direction, silent) => {
                if direction != Direction::ToClient {
                    self.silent[Direction::ToBroker as usize] = silent;
                }
                if direction != Direction::ToBroker {
                    self.silent[Direction::ToClient as usize] = silent;
                }
            }
            Command::Delay(delay) => self.delay = delay,
        }
        Ok(())
    }

    fn accept(&mut self) {
        let Some(Ok((client, _))) = self.listener.as_ref().map(TcpListener::accept) else {
            return;
        };
        self.accepted += 1;
        match TcpStream::connect_timeout(&self.broker, CONNECT) {
            Ok(broker) => self.links.extend(Link::new(client, broker)),
            Err(_) => reset(client),
        }
    }

    fn count(&self) {
        let open = self.links.iter().filter(|link| link.is_open()).count();
        let count = Count { open, accepted: self.accepted };
        if count != self.counts.get() {
            self.counts.set(count);
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = reserve(address)?;
    socket.listen(128)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn timeout(due: Option<Instant>) -> PollTimeout {
    let Some(due) = due else {
        return PollTimeout::NONE;
    };
    // Rounded up, so that what is due then is due.
    let left = due.saturating_duration_since(Instant::now()).as_millis().saturating_add(1);
    PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
}
