//! The socket to a broker: how it is opened, and how lapin gets it.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_lite::{AsyncRead, AsyncWrite, Stream as Items};
use futures_util::TryFutureExt;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConnection;
use tokio_util::either::Either;

use crate::Endpoint;
use crate::io_thread::IoThread;
use crate::socket::Socket;

/// A connection to a broker, without TLS or with it, with the traits that lapin reads and writes by.
///
/// lapin's thread reads as long as there is something, then handles it, writes what is to be written, and reads
/// again. Where it is to wait by itself, it does so before it reads.
pub struct Stream(Either<Socket, TlsStream<Socket>>);

impl Stream {
    /// What the TLS handshake came to: version, the broker's certificates. `None` without TLS.
    #[must_use]
    pub fn tls_session(&self) -> Option<&ClientConnection> {
        match &self.0 {
            Either::Left(_) => None,
            Either::Right(tls) => Some(tls.get_ref().1),
        }
    }

    /// The stream for lapin, another handle on its socket, and the thread that will read it if that runs tasks.
    pub(crate) fn for_lapin(mut self) -> io::Result<(Self, std::net::TcpStream, Option<Arc<IoThread>>)> {
        let socket = socket(&mut self.0);
        let handle = socket.second_handle()?;
        socket.wait_where_read()?;
        let thread = match socket {
            Socket::ByReader(waiting) => Some(waiting.tasks.thread.clone()),
            Socket::ByRuntime(_) => None,
        };
        Ok((self, handle, thread))
    }

    fn read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Socket::ByReader(waiting) = socket(&mut self.0) {
            waiting.before_read()?;
        }
        let read = Pin::new(&mut self.0).poll_read(context, buffer);
        if read.is_pending()
            && let Socket::ByReader(waiting) = socket(&mut self.0)
        {
            waiting.nothing_to_read();
            context.waker().wake_by_ref();
        }
        read
    }
}

fn socket(stream: &mut Either<Socket, TlsStream<Socket>>) -> &mut Socket {
    match stream {
        Either::Left(socket) => socket,
        Either::Right(tls) => tls.get_mut().0,
    }
}

impl Endpoint {
    /// Connects to the first host and, if the URL is `amqps://`, speaks TLS. Tries all addresses of the host.
    ///
    /// There is no deadline in it: the operating system's may be minutes.
    ///
    /// # Errors
    /// What the network or the handshake came to; [`io::ErrorKind::InvalidData`] is about a certificate, or
    /// about a peer that speaks no TLS.
    pub async fn connect(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect((self.host(), self.port())).await?;
        stream.set_nodelay(true)?;
        let socket = Socket::ByRuntime(stream);
        let stream = match self.tls() {
            Some(tls) => Either::Right(tls.handshake(self.host(), socket).await?),
            None => Either::Left(socket),
        };
        Ok(Stream(stream))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        ready!(self.get_mut().read(context, &mut buffer))?;
        Poll::Ready(Ok(buffer.filled().len()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match Pin::new(&mut self.get_mut().0).poll_shutdown(context) {
            // TLS would say good-bye. A peer that takes nothing is not waited for.
            Poll::Pending => Poll::Ready(Ok(())),
            closed => closed,
        }
    }
}

/// What lapin runs on: tokio, with sockets that may have TLS on them.
pub(crate) fn runtime() -> Runtime<RuntimeParts<Tokio, Sockets>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), Sockets(tokio)))
}

/// tokio's reactor, but for the type of a socket.
#[derive(Clone, Debug)]
pub(crate) struct Sockets(Tokio);

impl Reactor for Sockets {
    type TcpStream = Stream;
    type Sleep = <Tokio as Reactor>::Sleep;

    /// lapin has no use for it.
    fn register<H>(&self, _: H) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Self::TcpStream, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.0.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Items<Item = Instant> + Send + 'static {
        self.0.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        TcpStream::connect(address).map_ok(|stream| Stream(Either::Left(Socket::ByRuntime(stream))))
    }
}
