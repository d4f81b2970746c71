//! A connection's TCP socket, and who waits for it.
//!
//! lapin reads and writes in a thread of its own, and leaves the waiting to the runtime: when something comes, the
//! runtime's thread wakes lapin's, which reads it and wakes the program, which is on the runtime's thread. On
//! [`runtime`](crate::runtime) lapin's thread waits for the socket itself: see [`Stream`](crate::Stream).

use std::io::{self, Read, Write};
use std::mem;
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use mio::{Events, Interest, Token};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::idle::is_on_runtime;
use crate::io_thread::Tasks;

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);

/// A socket that is waited for in one of two ways.
pub(crate) enum Socket {
    ByRuntime(TcpStream),
    ByReader(Box<Waiting>),
}

/// A socket for which the thread waits that reads it.
pub(crate) struct Waiting {
    stream: mio::net::TcpStream,
    poll: mio::Poll,
    events: Events,
    pub(crate) tasks: Tasks,
    /// Whether the reader was told that there is nothing.
    is_told: bool,
    /// Whether there may be something to read.
    is_readable: bool,
    /// Whether the peer has said its last. The next wait might be for ever.
    is_ended: bool,
    /// Who wants to know when there is room to write.
    writer: Option<Waker>,
}

impl Socket {
    /// Another handle on the same socket, before the reader waits for it.
    pub(crate) fn second_handle(&self) -> io::Result<std::net::TcpStream> {
        let Self::ByRuntime(stream) = self else { return Err(io::ErrorKind::Unsupported.into()) };
        #[cfg(unix)]
        let handle = std::os::fd::AsFd::as_fd(stream).try_clone_to_owned()?;
        #[cfg(windows)]
        let handle = std::os::windows::io::AsSocket::as_socket(stream).try_clone_to_owned()?;
        Ok(handle.into())
    }

    /// From now on whoever reads waits, where this thread's runtime would wake it.
    pub(crate) fn wait_where_read(&mut self) -> io::Result<()> {
        if !is_on_runtime() {
            return Ok(());
        }
        let poll = mio::Poll::new()?;
        let tasks = Tasks::new(mio::Waker::new(poll.registry(), WAKER)?);
        let mut stream = mio::net::TcpStream::from_std(self.second_handle()?);
        poll.registry().register(&mut stream, SOCKET, Interest::READABLE | Interest::WRITABLE)?;
        *self = Self::ByReader(Box::new(Waiting {
            stream,
            poll,
            events: Events::with_capacity(2),
            tasks,
            is_told: false,
            is_readable: true,
            is_ended: false,
            writer: None,
        }));
        Ok(())
    }
}

impl Waiting {
    /// Runs the tasks that can go on. Waits if the reader comes back after it was told that there is nothing.
    pub(crate) fn before_read(&mut self) -> io::Result<()> {
        let have_run = self.tasks.run();
        if mem::take(&mut self.is_told) {
            // What tasks gave to lapin is to be written first.
            self.wait(have_run.then_some(Duration::ZERO))?;
        }
        Ok(())
    }

    /// The reader is told so. It looks a last time for something to write before it comes back.
    pub(crate) fn nothing_to_read(&mut self) {
        self.tasks.thread.falls_asleep();
        self.is_told = true;
    }

    /// Waits until there is something to read, or room to write, or the thread is woken, or until `limit`.
    fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        if self.is_readable {
            return Ok(());
        }
        match self.poll.poll(&mut self.events, limit) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => self.tasks.thread.is_up(),
        }
        for event in self.events.iter().filter(|event| event.token() == SOCKET) {
            self.is_ended |= event.is_read_closed() || event.is_error();
            self.is_readable |= event.is_readable() || self.is_ended;
            if event.is_writable()
                && let Some(writer) = self.writer.take()
            {
                writer.wake();
            }
        }
        Ok(())
    }

    /// Where there is nothing to read nobody is woken later: it is the reader who has to [wait](Self::wait).
    fn read(&mut self, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.is_readable {
            match self.stream.read(buffer.initialize_unfilled()) {
                Ok(bytes) => {
                    // Where events tell of what is new, less than was wanted is all there was.
                    let is_all = cfg!(unix) && 0 < bytes && bytes < buffer.remaining();
                    self.is_readable = !is_all || self.is_ended;
                    buffer.advance(bytes);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Pending
    }

    fn write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writer = Some(context.waker().clone());
                    return Poll::Pending;
                }
                result => return Poll::Ready(result),
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::ByRuntime(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::ByReader(waiting) => waiting.read(buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::ByRuntime(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::ByReader(waiting) => waiting.write(context, bytes),
        }
    }

    /// What is written has left.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::ByRuntime(stream) => Pin::new(stream).poll_shutdown(context),
            Self::ByReader(waiting) => Poll::Ready(waiting.stream.shutdown(Shutdown::Write)),
        }
    }
}
