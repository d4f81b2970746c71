//! The socket to a broker: how it is opened, and how lapin gets it.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_lite::{AsyncRead, AsyncWrite, Stream as Items};
use futures_util::TryFutureExt;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConnection;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::either::Either;

use crate::Endpoint;

/// A connection to a broker, without TLS or with it, with the traits that lapin reads and writes by.
pub type Stream = Compat<Either<TcpStream, TlsStream<TcpStream>>>;

/// What the TLS handshake came to: version, the broker's certificates. `None` without TLS.
#[must_use]
pub fn tls_session(stream: &Stream) -> Option<&ClientConnection> {
    match stream.get_ref() {
        Either::Left(_) => None,
        Either::Right(tls) => Some(tls.get_ref().1),
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
        let stream = match self.tls() {
            Some(tls) => Either::Right(tls.handshake(self.host(), stream).await?),
            None => Either::Left(stream),
        };
        Ok(stream.compat())
    }
}

/// Another handle on the same socket.
pub(crate) fn second_handle(stream: &Stream) -> io::Result<std::net::TcpStream> {
    let stream = match stream.get_ref() {
        Either::Left(tcp) => tcp,
        Either::Right(tls) => tls.get_ref().0,
    };
    #[cfg(unix)]
    let handle = std::os::fd::AsFd::as_fd(stream).try_clone_to_owned()?;
    #[cfg(windows)]
    let handle = std::os::windows::io::AsSocket::as_socket(stream).try_clone_to_owned()?;
    Ok(handle.into())
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
        TcpStream::connect(address).map_ok(|stream| Either::Left(stream).compat())
    }
}
