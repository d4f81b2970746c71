//! Does an AMQP 0-9-1 broker answer at an address?

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// What a client says first: the protocol and its version.
const HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";

/// Frame type, channel, size, then the method: class 10, method 10 is `connection.start`.
const START: [u8; 4] = [0, 10, 0, 10];

/// Whether a broker that speaks AMQP 0-9-1 answers at `addr` within `timeout` (for all resolved addresses
/// together).
///
/// It sends the protocol header and expects `connection.start`: that a connection is accepted says little,
/// because the kernel accepts for a stopped process and Docker's port proxy for a broker that still boots.
pub fn speaks_amqp(addr: impl ToSocketAddrs, timeout: Duration) -> bool {
    let deadline = Instant::now() + timeout;
    let Ok(addresses) = addr.to_socket_addrs() else {
        return false;
    };
    addresses.into_iter().any(|address| {
        let left = || deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        let Some(limit) = left() else {
            return false;
        };
        let Ok(mut stream) = TcpStream::connect_timeout(&address, limit) else {
            return false;
        };
        if stream.set_write_timeout(Some(limit)).is_err() || stream.write_all(HEADER).is_err() {
            return false;
        }
        let mut reply = [0; 11];
        let mut filled = 0;
        while filled < reply.len() {
            // A timeout holds for one read only, and a peer may send byte after byte.
            let Some(limit) = left() else {
                return false;
            };
            if stream.set_read_timeout(Some(limit)).is_err() {
                return false;
            }
            match stream.read(&mut reply[filled..]) {
                Ok(0) | Err(_) => return false,
                Ok(count) => filled += count,
            }
        }
        reply[0] == 1 && reply[7..] == START
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    fn peer(reply: &'static [u8]) -> std::net::SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut header = [0; 8];
            stream.read_exact(&mut header).unwrap();
            stream.write_all(reply).unwrap();
            // Stay silent until the other side leaves.
            let _ = stream.read(&mut header);
        });
        address
    }

    #[test]
    fn connection_start_is_amqp() {
        assert!(speaks_amqp(peer(&[1, 0, 0, 0, 0, 1, 255, 0, 10, 0, 10, 0, 9]), Duration::from_secs(5)));
    }

    #[test]
    fn another_protocol_and_silence_are_not() {
        assert!(!speaks_amqp(peer(b"HTTP/1.1 400 Bad Request\r\n"), Duration::from_secs(5)));
        assert!(!speaks_amqp(peer(b"AMQP\x00\x01\x00\x00"), Duration::from_millis(100)));
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!speaks_amqp(silent.local_addr().unwrap(), Duration::from_millis(100)));
    }

    #[test]
    fn nothing_there_is_not() {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(!speaks_amqp(address, Duration::from_secs(5)));
    }
}
