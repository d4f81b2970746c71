//! Does an AMQP 0-9-1 broker answer at an address?

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
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
    greet(addr, timeout).is_ok()
}

/// Like [`speaks_amqp`], and says what came instead; of several addresses, from the last.
pub(crate) fn greet(addr: impl ToSocketAddrs, timeout: Duration) -> io::Result<()> {
    let deadline = Instant::now() + timeout;
    let mut result = Err(io::Error::new(ErrorKind::AddrNotAvailable, "no such address"));
    for address in addr.to_socket_addrs()? {
        result = greet_one(address, deadline);
        if result.is_ok() {
            break;
        }
    }
    result
}

fn greet_one(address: SocketAddr, deadline: Instant) -> io::Result<()> {
    let left = || {
        let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        left.ok_or_else(|| io::Error::from(ErrorKind::TimedOut))
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    stream.write_all(HEADER)?;
    let mut reply = [0; 11];
    let mut filled = 0;
    while filled < reply.len() {
        // A timeout holds for one read only, and a peer may send byte after byte.
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut reply[filled..]) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => filled += count,
            // Linux interrupts a read with a timeout also without a handler, when the process was stopped.
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if reply[0] == 1 && reply[7..] == START {
        return Ok(());
    }
    Err(io::Error::new(ErrorKind::InvalidData, "what answers does not speak AMQP 0-9-1"))
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
