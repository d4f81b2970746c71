//! What a client and a broker see of each other through a relay that is told to misbehave.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use harness::{Direction, Relay, silent_peer};

const SOON: Duration = Duration::from_secs(10);
/// Long enough for a byte on the loopback to have arrived, were it on its way.
const NOTHING: Duration = Duration::from_millis(150);

/// A relay, its client and its broker, connected.
struct Line {
    relay: Relay,
    client: TcpStream,
    broker: TcpStream,
    listener: TcpListener,
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn connect(address: SocketAddr) -> TcpStream {
    patient(TcpStream::connect_timeout(&address, SOON).unwrap())
}

/// No test hangs.
fn patient(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

impl Line {
    fn open() -> Self {
        let (listener, address) = listener();
        let relay = Relay::start(address).unwrap();
        let client = connect(relay.address());
        let broker = patient(listener.accept().unwrap().0);
        relay.wait_for_connections(1, SOON);
        Self { relay, client, broker, listener }
    }
}

#[track_caller]
fn passes(mut from: &TcpStream, mut to: &TcpStream) {
    from.write_all(b"ping").unwrap();
    let mut bytes = [0; 4];
    to.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"ping");
}

#[track_caller]
fn nothing_arrives(mut at: &TcpStream) {
    at.set_read_timeout(Some(NOTHING)).unwrap();
    assert_eq!(at.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
    at.set_read_timeout(Some(SOON)).unwrap();
}

/// What a read ends with.
fn end(mut stream: &TcpStream) -> Result<usize, ErrorKind> {
    stream.read(&mut [0; 1]).map_err(|e| e.kind())
}

#[test]
fn bytes_pass_both_ways_and_so_does_the_end() {
    let Line { relay, client, broker, .. } = Line::open();
    passes(&client, &broker);
    passes(&broker, &client);
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(end(&broker), Ok(0));
    passes(&broker, &client);
    drop(broker);
    assert_eq!(end(&client), Ok(0));
    relay.wait_for_connections(0, SOON);
    assert_eq!(relay.accepted(), 1);
}

#[test]
fn more_bytes_than_any_buffer_holds_arrive_in_order() {
    let Line { relay, client, mut broker, .. } = Line::open();
    relay.delay(Duration::from_millis(2));
    let sent: Vec<u8> = (0..40_000_000_u32).map(|i| (i % 251) as u8).collect();
    let expected = sent.clone();
    let writer = thread::spawn(move || (&client).write_all(&sent).unwrap());
    let mut received = Vec::new();
    broker.read_to_end(&mut received).unwrap();
    writer.join().unwrap();
    assert!(received == expected);
}

#[test]
fn a_reset_is_passed_on_as_a_reset() {
    let Line { relay, client, broker, .. } = Line::open();
    // Closing a socket with unread bytes resets the connection.
    (&client).write_all(b"never read").unwrap();
    broker.peek(&mut [0; 1]).unwrap();
    drop(broker);
    assert_eq!(end(&client), Err(ErrorKind::ConnectionReset));
    relay.wait_for_connections(0, SOON);
}

#[test]
fn cut_resets_both_sides_and_accepts_again() {
    let Line { relay, client, broker, listener } = Line::open();
    passes(&client, &broker);
    relay.cut();
    assert_eq!(relay.connections(), 0);
    assert_eq!(end(&client), Err(ErrorKind::ConnectionReset));
    assert_eq!(end(&broker), Err(ErrorKind::ConnectionReset));
    let client = connect(relay.address());
    let broker = patient(listener.accept().unwrap().0);
    passes(&client, &broker);
    assert_eq!((relay.connections(), relay.accepted()), (1, 2));
}

#[test]
fn close_is_orderly_even_with_bytes_on_their_way() {
    let Line { relay, client, broker, .. } = Line::open();
    relay.silence(Direction::Both, true);
    (&client).write_all(&[7; 100_000]).unwrap();
    relay.close();
    assert_eq!(relay.connections(), 0);
    assert_eq!(end(&client), Ok(0));
    assert_eq!(end(&broker), Ok(0));
    (&client).write_all(b"one more").unwrap();
    assert_eq!(end(&client), Ok(0), "no reset follows");
}

#[test]
fn refuse_refuses_new_connections_and_keeps_old_ones() {
    let Line { relay, client, broker, listener } = Line::open();
    for _ in 0..2 {
        relay.refuse(true);
        relay.refuse(true);
        let error = TcpStream::connect(relay.address()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        passes(&client, &broker);
        relay.refuse(false);
        relay.refuse(false);
        let second = connect(relay.address());
        passes(&second, &listener.accept().unwrap().0);
    }
}

#[test]
fn a_refused_port_stays_reserved() {
    let (_listener, address) = listener();
    let relay = Relay::start(address).unwrap();
    relay.refuse(true);
    assert!((0..2000).all(|_| listener().1.port() != relay.port()));
    relay.refuse(false);
}

#[test]
fn silence_holds_bytes_and_the_end_back_until_it_is_over() {
    let Line { relay, client, broker, .. } = Line::open();
    relay.silence(Direction::ToBroker, true);
    (&client).write_all(b"ping").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    nothing_arrives(&broker);
    passes(&broker, &client);
    relay.silence(Direction::ToBroker, false);
    let mut bytes = Vec::new();
    (&broker).read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, b"ping");
}

#[test]
fn silence_towards_the_client_leaves_the_other_way_open() {
    let Line { relay, client, broker, .. } = Line::open();
    relay.silence(Direction::ToClient, true);
    (&broker).write_all(b"ping").unwrap();
    nothing_arrives(&client);
    passes(&client, &broker);
    relay.silence(Direction::ToClient, false);
    (&client).read_exact(&mut [0; 4]).unwrap();
}

#[test]
fn silence_accepts_new_connections_and_costs_no_time_when_a_side_dies() {
    let Line { relay, client, broker, listener } = Line::open();
    relay.silence(Direction::Both, true);
    drop(broker);
    drop(client);
    let client = connect(relay.address());
    let broker = patient(listener.accept().unwrap().0);
    (&client).write_all(b"ping").unwrap();
    nothing_arrives(&broker);
    assert_eq!(relay.connections(), 2, "the dead one is not noticed yet");
    #[cfg(target_os = "linux")]
    assert!(processor_ticks(&relay) < 5, "the relay must not spin");
    relay.silence(Direction::Both, false);
    (&broker).read_exact(&mut [0; 4]).unwrap();
    relay.wait_for_connections(1, SOON);
}

/// The directory of the relay's thread.
#[cfg(target_os = "linux")]
fn thread_of(port: u16) -> Option<std::path::PathBuf> {
    let name = format!("relay {port}\n");
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .map(|task| task.unwrap().path())
        .find(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|n| n == name))
}

/// Hundredths of a second of processor time that the relay's thread has used.
#[cfg(target_os = "linux")]
fn processor_ticks(relay: &Relay) -> u32 {
    let stat = std::fs::read_to_string(thread_of(relay.port()).unwrap().join("stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap()
}

#[test]
fn delay_comes_on_top_each_way() {
    let Line { relay, client, broker, .. } = Line::open();
    relay.delay(Duration::from_millis(100));
    let started = Instant::now();
    passes(&client, &broker);
    passes(&broker, &client);
    assert!(started.elapsed() >= Duration::from_millis(200), "{:?}", started.elapsed());
    relay.delay(Duration::ZERO);
    passes(&client, &broker);
}

#[test]
fn a_broker_that_is_not_there_shows_as_a_reset() {
    let (gone, address) = listener();
    drop(gone);
    let relay = Relay::start(address).unwrap();
    // The reset may be there before the client has seen that it was connected.
    let end =
        TcpStream::connect(relay.address()).map_err(|e| e.kind()).and_then(|client| end(&patient(client)));
    assert_eq!(end, Err(ErrorKind::ConnectionReset));
    relay.wait_for_accepted(1, SOON);
    assert_eq!(relay.connections(), 0);
}

#[test]
fn connections_are_waited_for_with_a_deadline() {
    let Line { relay, client, .. } = Line::open();
    let waiting = std::panic::AssertUnwindSafe(|| relay.wait_for_connections(2, Duration::from_millis(50)));
    let payload = std::panic::catch_unwind(waiting).unwrap_err();
    let text = payload.downcast_ref::<String>().unwrap();
    assert_eq!(text, "waited 50ms for 2 open connections, got 1 open, 1 accepted so far");
    thread::scope(|scope| {
        scope.spawn(|| relay.wait_for_connections(0, SOON));
        relay.cut();
    });
    drop(client);
}

#[test]
fn dropping_resets_connections_and_ends_the_thread() {
    let Line { relay, client, broker, .. } = Line::open();
    let (address, port) = (relay.address(), relay.port());
    #[cfg(target_os = "linux")]
    assert!(thread_of(port).is_some());
    drop(relay);
    assert_eq!(end(&client), Err(ErrorKind::ConnectionReset));
    assert_eq!(end(&broker), Err(ErrorKind::ConnectionReset));
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    #[cfg(target_os = "linux")]
    assert!(thread_of(port).is_none());
    let _ = port;
}

#[test]
fn a_silent_peer_takes_everything_and_says_nothing() {
    let peer = silent_peer();
    let address = SocketAddr::from(([127, 0, 0, 1], peer.port()));
    let clients: Vec<_> = (0..50).map(|_| connect(address)).collect();
    (&clients[0]).write_all(b"AMQP\0\0\x09\x01").unwrap();
    nothing_arrives(&clients[0]);
}
