//! One lapin connection, from dialling to its loss: what the supervisor calls a generation.

use std::io;
use std::net::{Shutdown, TcpStream};
use std::pin::pin;
use std::sync::{Arc, Mutex};

use futures_lite::StreamExt;
use lapin::{AsyncTcpStream, ConnectionProperties, Event};
use tokio::sync::{Notify, SetOnce, watch};
use tokio::time::{Duration, Instant, interval, timeout};

use crate::idle::wake_sleepers;
use crate::io_thread::{IoThread, Movable};
use crate::lock::lock;
use crate::{Deadline, Endpoint, Error, Result, stream};

/// lapin does not report every loss as an event, so its status is looked at this often as well, and its thread woken.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What a call may still do once its connection is lost: time to return the real error.
pub(crate) const GRACE: Duration = Duration::from_millis(250);

/// How long after a change of its status lapin may tell why. Until it does the connection is not called lost.
const WHY: Duration = Duration::from_millis(100);

/// How old a refusal may be to explain why a channel is found closed.
const RECENT: Duration = Duration::from_secs(2);

/// How long the close handshake may take; a blocked or silent broker never answers it.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// A live (or lost) connection. Never repaired: the next one is a new `Link`.
pub(crate) struct Link {
    pub(crate) generation: u64,
    connection: lapin::Connection,
    /// `None` where it runs no tasks.
    io_thread: Option<Arc<IoThread>>,
    socket: SecondHandle,
    blocked: watch::Sender<Option<String>>,
    /// Why the broker last closed a channel, and when.
    refusal: watch::Sender<Option<(lapin::Error, Instant)>>,
    suspected: Notify,
    /// Why it is lost, once it is.
    lost: SetOnce<Arc<Error>>,
}

/// A second handle on the connection's TCP socket, the only way to end lapin's thread on a silent peer: that
/// is what dropping it does.
struct SecondHandle(TcpStream);

impl SecondHandle {
    fn shut_down(&self) {
        // An error means that it is closed already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Drop for SecondHandle {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Connects, speaks TLS if asked to, logs in and opens the vhost, all within `limit`.
pub(crate) async fn dial(
    endpoint: &Arc<Endpoint>,
    name: &str,
    generation: u64,
    limit: Duration,
) -> Result<Arc<Link>> {
    let dialling = async {
        let (stream, socket, io_thread) = endpoint.connect().await?.for_lapin()?;
        let socket = SecondHandle(socket);
        // Asked for once, since lapin is not to connect again by itself.
        let stream = Mutex::new(Some(AsyncTcpStream::Plain(stream)));
        let connection = lapin::Connection::connector(
            endpoint.uri().clone(),
            stream::runtime(),
            async move |_, _| {
                let stream = lock(&stream).take();
                Ok(stream.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?)
            },
            ConnectionProperties::default().with_connection_name(name.into()),
        );
        Ok((socket, io_thread, connection.await?))
    };
    let dialled = timeout(limit, dialling).await;
    let dialled = dialled.unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut).into()));
    let (socket, io_thread, connection) =
        dialled.map_err(|cause| Error::Connect { endpoint: endpoint.clone(), cause })?;
    Ok(Arc::new(Link {
        generation,
        connection,
        io_thread,
        socket,
        blocked: watch::Sender::new(None),
        refusal: watch::Sender::new(None),
        suspected: Notify::new(),
        lost: SetOnce::new(),
    }))
}

impl Link {
    /// Waits until the connection is gone, passing on what happens meanwhile; the cause of its end.
    pub(crate) async fn watch(&self, mut blocked: impl FnMut(Option<String>)) -> Arc<Error> {
        // The only listener: two would share the events out between them.
        let mut events = pin!(self.connection.events_listener());
        let mut look = interval(LOOK_INTERVAL);
        let mut error = None;
        while self.connection.status().connected() && !self.is_lost() {
            wake_sleepers();
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        self.blocked.send_replace(Some(reason.clone()));
                        blocked(Some(reason));
                    }
                    Some(Event::ConnectionUnblocked) => {
                        self.blocked.send_replace(None);
                        blocked(None);
                    }
                    // Also sent for the errors of single channels, which are not the connection's.
                    Some(Event::Error(event)) if event.is_amqp_soft_error() => {
                        self.refusal.send_replace(Some((event, Instant::now())));
                    }
                    Some(Event::Error(event)) => error = Some(event),
                    _ => {}
                },
                () = self.suspected.notified() => {}
                _ = self.lost() => {}
                _ = look.tick() => {}
            }
        }
        if error.is_none() && !self.is_lost() {
            let told = events.find_map(|event| match event {
                Event::Error(event) if !event.is_amqp_soft_error() => Some(event),
                _ => None,
            });
            error = timeout(WHY, told).await.ok().flatten();
        }
        let cause = error.unwrap_or_else(|| io::Error::from(io::ErrorKind::ConnectionAborted).into());
        self.lose(Error::Ended(cause)).await
    }

    /// Declares the connection dead and ends its socket. The first cause stays.
    pub(crate) async fn lose(&self, cause: Error) -> Arc<Error> {
        let _known_before = self.lost.set(Arc::new(cause));
        self.socket.shut_down();
        self.lost().await
    }

    /// Asks for a look at the connection's status at once, after an error that may come from its loss.
    pub(crate) fn suspect(&self) {
        self.suspected.notify_one();
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.initialized()
    }

    /// Resolves with the cause once the connection is lost.
    pub(crate) async fn lost(&self) -> Arc<Error> {
        self.lost.wait().await.clone()
    }

    /// The reason for which the broker blocks publishing, if it does.
    pub(crate) fn blocked(&self) -> Option<String> {
        self.blocked.borrow().clone()
    }

    /// Why the broker closed a channel a moment ago. lapin tells it only to the call that was waiting then.
    pub(crate) fn recent_refusal(&self) -> Option<lapin::Error> {
        let refusal = self.refusal.send_replace(None);
        refusal.filter(|(_, since)| since.elapsed() < RECENT).map(|(refusal, _)| refusal)
    }

    /// Resolves once the broker does not block publishing, or the connection is lost.
    pub(crate) async fn unblocked(&self) {
        let mut blocked = self.blocked.subscribe();
        tokio::select! {
            _ = blocked.wait_for(Option::is_none) => {}
            _ = self.lost() => {}
        }
    }

    /// What `work` comes to, unless the connection is lost first. Where it is, lapin's calls may hang.
    pub(crate) async fn unless_lost<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        tokio::select! {
            biased;
            result = &mut work => result,
            // A moment for lapin to tell the real error.
            cause = self.lost() => timeout(GRACE, work).await.unwrap_or(Err(Error::Lost(cause))),
        }
    }

    /// Goes on with `work` on lapin's thread. `None` if that runs no tasks, or ends first.
    pub(crate) async fn on_io_thread<T: Send + 'static>(&self, work: &Movable<T>) -> Option<T> {
        self.io_thread.as_ref()?.run(work).await
    }

    /// Opens a channel. A timeout costs the connection.
    pub(crate) async fn channel(&self) -> Result<lapin::Channel> {
        let channel = self.connection.create_channel().deadline("open a channel");
        match self.unless_lost(channel).await {
            Err(error @ Error::Timeout { .. }) if self.blocked().is_none() => {
                Err(Error::Lost(self.lose(error).await))
            }
            channel => channel,
        }
    }

    /// Closes politely if the broker answers soon, and for certain in any case.
    pub(crate) async fn close(&self) {
        if self.blocked().is_none() {
            let _ = timeout(CLOSE_DEADLINE, self.connection.close(200, "OK".into())).await;
        }
        self.lose(Error::Stopped).await;
    }
}
