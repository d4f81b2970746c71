//! A peer that accepts connections and never says a word.

use std::net::{Ipv4Addr, TcpListener};

/// Accepts connections on a free port of 127.0.0.1 for as long as it lives, and sends nothing on any.
pub struct SilentPeer {
    _listener: TcpListener,
    port: u16,
}

/// Starts a [`SilentPeer`].
///
/// # Panics
/// When there is no free port.
#[track_caller]
pub fn silent_peer() -> SilentPeer {
    // The kernel alone completes connections to a listener, more than a hundred of them: nobody has to
    // accept, so no thread is needed.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port on 127.0.0.1");
    let port = listener.local_addr().expect("a bound listener has an address").port();
    SilentPeer { _listener: listener, port }
}

impl SilentPeer {
    /// The port to connect to.
    pub fn port(&self) -> u16 {
        self.port
    }
}
