//! One relayed connection: two sockets and what is on its way between them.

use std::collections::VecDeque;
use std::io;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use socket2::SockRef;

/// How much may wait in one direction before its sender has to wait as well.
const CAPACITY: usize = 4 << 20;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// One of the two directions as an index: [`super::Direction::ToBroker`] is 0, `ToClient` is 1.
/// Bytes of direction `i` come from end `i` and go to the other end.
pub(super) type Way = usize;

/// What a link can do next.
#[derive(Clone, Copy)]
pub(super) enum Step {
    Read(Way),
    Write(Way),
}

impl Step {
    /// The event that this step waits for.
    pub(super) fn event(self) -> PollFlags {
        match self {
            Self::Read(_) => PollFlags::POLLIN,
            Self::Write(_) => PollFlags::POLLOUT,
        }
    }
}

pub(super) struct Link {
    /// The client's end and the broker's end; gone once the connection was cut.
    ends: Option<[TcpStream; 2]>,
    pipes: [Pipe; 2],
    /// Said goodbye to both sides: whatever still comes is read, so that it does not cause a reset, and dropped.
    closing: bool,
}

#[derive(Default)]
struct Pipe {
    chunks: VecDeque<Chunk>,
    waiting: usize,
    /// The sender has sent all that it will ever send.
    ended: bool,
    /// The receiver was told so.
    finished: bool,
}

struct Chunk {
    due: Instant,
    /// No bytes mean the end of the stream.
    bytes: Vec<u8>,
    written: usize,
}

impl Link {
    pub(super) fn new(client: TcpStream, broker: TcpStream) -> io::Result<Self> {
        for end in [&client, &broker] {
            end.set_nonblocking(true)?;
            end.set_nodelay(true)?;
        }
        Ok(Self { ends: Some([client, broker]), pipes: Default::default(), closing: false })
    }

    pub(super) fn is_open(&self) -> bool {
        self.ends.is_some() && !self.closing
    }

    /// Nothing will ever pass again.
    pub(super) fn is_over(&self) -> bool {
        self.ends.is_none() || self.pipes.iter().all(|pipe| pipe.finished)
    }

    /// The steps that make sense now, each with the socket that it needs; `due` becomes the earliest time at
    /// which there will be another one.
    pub(super) fn steps(
        &self,
        silent: [bool; 2],
        now: Instant,
        due: &mut Option<Instant>,
    ) -> Vec<(Step, BorrowedFd<'_>)> {
        let mut steps = Vec::new();
        let Some(ends) = &self.ends else {
            return steps;
        };
        for (way, pipe) in self.pipes.iter().enumerate() {
            if silent[way] && !self.closing {
                continue;
            }
            if !pipe.ended && pipe.waiting < CAPACITY {
                steps.push((Step::Read(way), ends[way].as_fd()));
            }
            match pipe.chunks.front() {
                Some(chunk) if chunk.due <= now => steps.push((Step::Write(way), ends[1 - way].as_fd())),
                Some(chunk) => *due = Some(due.map_or(chunk.due, |due| due.min(chunk.due))),
                None => {}
            }
        }
        steps
    }

    /// Does one step; a socket that broke breaks the other one in the same way.
    pub(super) fn step(&mut self, step: Step, delay: Duration) {
        let Some(ends) = &self.ends else {
            return;
        };
        let result = match step {
            Step::Read(way) if self.closing => self.pipes[way].discard(&ends[way]),
            Step::Read(way) => self.pipes[way].read(&ends[way], delay).and_then(|()| {
                // Mostly the receiver has room, which saves a round.
                self.pipes[way].write(&ends[1 - way])
            }),
            Step::Write(way) => self.pipes[way].write(&ends[1 - way]),
        };
        match result {
            Err(e) if !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => self.cut(),
            _ => {}
        }
    }

    /// Resets both sides.
    pub(super) fn cut(&mut self) {
        self.ends.take().into_iter().flatten().for_each(reset);
    }

    /// Ends both sides in good order.
    pub(super) fn close(&mut self) {
        if let Some(ends) = &self.ends {
            self.closing = true;
            for (end, pipe) in ends.iter().zip(&mut self.pipes) {
                pipe.chunks.clear();
                pipe.waiting = 0;
                pipe.finished = pipe.ended;
                // Fails when the other side is gone already, which is as good.
                let _ = end.shutdown(Shutdown::Write);
            }
        }
    }
}

impl Pipe {
    fn read(&mut self, mut from: &TcpStream, delay: Duration) -> io::Result<()> {
        let mut bytes = vec![0; CHUNK];
        let length = from.read(&mut bytes)?;
        bytes.truncate(length);
        self.waiting += length;
        self.ended = length == 0;
        self.chunks.push_back(Chunk { due: Instant::now() + delay, bytes, written: 0 });
        Ok(())
    }

    fn discard(&mut self, mut from: &TcpStream) -> io::Result<()> {
        self.ended = from.read(&mut [0; 4096])? == 0;
        self.finished = self.ended;
        Ok(())
    }

    fn write(&mut self, mut to: &TcpStream) -> io::Result<()> {
        let now = Instant::now();
        while let Some(chunk) = self.chunks.front_mut().filter(|chunk| chunk.due <= now) {
            if chunk.bytes.is_empty() {
                to.shutdown(Shutdown::Write)?;
                self.finished = true;
            } else {
                chunk.written += to.write(&chunk.bytes[chunk.written..])?;
                if chunk.written < chunk.bytes.len() {
                    continue;
                }
                self.waiting -= chunk.bytes.len();
            }
            self.chunks.pop_front();
        }
        Ok(())
    }
}

/// Closes a connection with a reset instead of a goodbye.
pub(super) fn reset(socket: TcpStream) {
    // Fails for a connection that is gone already.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
}
