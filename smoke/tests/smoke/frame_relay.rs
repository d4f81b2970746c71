//! A relay that reads what a broker sends, frame by frame, and tampers with it.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

/// What is done to the messages on their way to the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tampering {
    /// Nothing: to see that the relay itself does no harm.
    None,
    /// Confirms do not come through.
    DropConfirms,
    /// Of two messages in a row the second goes first.
    Reorder,
    /// Each message comes twice.
    Duplicate,
    /// A byte in each body is another one.
    Corrupt,
    /// Each message comes so much later.
    Delay(Duration),
}

/// Relays to a broker on this machine for as long as the process lives; the port to connect to.
pub(crate) fn start(broker: u16, tampering: Tampering) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let broker = TcpStream::connect(("127.0.0.1", broker)).unwrap();
            for stream in [&client, &broker] {
                stream.set_nodelay(true).unwrap();
            }
            let (from_client, to_broker) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
            thread::spawn(move || copy(from_client, to_broker));
            thread::spawn(move || tamper(broker, client, tampering));
        }
    });
    port
}

/// Passes bytes on until one side ends; then both are ended.
fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Write);
}

fn tamper(broker: TcpStream, mut client: TcpStream, tampering: Tampering) {
    let (send, frames) = mpsc::channel();
    thread::spawn(move || read_all(broker, &send));
    // An error means that one side is gone.
    let _ = Tamperer { client: &mut client, tampering, frames, collecting: HashMap::new() }.run();
    let _ = client.shutdown(Shutdown::Both);
}

/// Reads frames to the end of the stream.
fn read_all(mut broker: TcpStream, send: &mpsc::Sender<Frame>) {
    while let Ok(frame) = Frame::read(&mut broker) {
        if send.send(frame).is_err() {
            break;
        }
    }
    let _ = broker.shutdown(Shutdown::Both);
}

/// A frame as it came.
struct Frame {
    bytes: Vec<u8>,
    at: Instant,
}

impl Frame {
    fn read(stream: &mut TcpStream) -> io::Result<Self> {
        let mut bytes = vec![0; 7];
        stream.read_exact(&mut bytes)?;
        let size = u32::from_be_bytes([bytes[3], bytes[4], bytes[5], bytes[6]]) as usize;
        // The end mark is one byte more.
        bytes.resize(7 + size + 1, 0);
        stream.read_exact(&mut bytes[7..])?;
        assert_eq!(bytes.last(), Some(&0xce), "out of step with the broker's frames");
        Ok(Self { bytes, at: Instant::now() })
    }

    fn channel(&self) -> u16 {
        u16::from_be_bytes([self.bytes[1], self.bytes[2]])
    }

    /// Class and method, for a method frame.
    fn method(&self) -> Option<(u16, u16)> {
        let number = |at: usize| u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        (self.bytes[0] == 1).then(|| (number(7), number(9)))
    }

    /// The size of the body that follows, for a header frame.
    fn body_size(&self) -> Option<u64> {
        let size = self.bytes.get(11..19)?;
        (self.bytes[0] == 2).then(|| u64::from_be_bytes(size.try_into().unwrap()))
    }

    fn payload_size(&self) -> u64 {
        (self.bytes.len() - 8) as u64
    }
}

const DELIVER: (u16, u16) = (60, 60);
const ACK: (u16, u16) = (60, 80);

/// A delivery whose frames have not all come.
struct Delivery {
    frames: Vec<Frame>,
    missing: Option<u64>,
}

struct Tamperer<'c> {
    client: &'c mut TcpStream,
    tampering: Tampering,
    frames: mpsc::Receiver<Frame>,
    /// By channel.
    collecting: HashMap<u16, Delivery>,
}

impl Tamperer<'_> {
    fn run(&mut self) -> io::Result<()> {
        let mut held: Option<Vec<Frame>> = None;
        loop {
            // A message that no other follows is not held back for ever.
            let next = match &held {
                Some(_) => self.frames.recv_timeout(Duration::from_millis(50)),
                None => self.frames.recv().map_err(Into::into),
            };
            let frame = match next {
                Ok(frame) => frame,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    self.write(&held.take().unwrap_or_default())?;
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            };
            let Some(delivery) = self.collect(frame)? else { continue };
            match self.tampering {
                Tampering::Reorder => match held.take() {
                    Some(first) => {
                        self.write(&delivery)?;
                        self.write(&first)?;
                    }
                    None => held = Some(delivery),
                },
                Tampering::Duplicate => {
                    self.write(&delivery)?;
                    self.write(&delivery)?;
                }
                Tampering::Corrupt => self.write(&corrupted(delivery))?,
                Tampering::Delay(delay) => {
                    let due = delivery[0].at + delay;
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    self.write(&delivery)?;
                }
                Tampering::None | Tampering::DropConfirms => self.write(&delivery)?,
            }
        }
    }

    /// Passes a frame on, unless it is part of a delivery; that one once it is complete.
    fn collect(&mut self, frame: Frame) -> io::Result<Option<Vec<Frame>>> {
        let channel = frame.channel();
        if frame.method() == Some(DELIVER) {
            self.collecting.insert(channel, Delivery { frames: vec![frame], missing: None });
            return Ok(None);
        }
        if let Some(delivery) = self.collecting.get_mut(&channel).filter(|_| frame.method().is_none()) {
            delivery.missing = match delivery.missing {
                None => frame.body_size(),
                Some(missing) => Some(missing - frame.payload_size()),
            };
            delivery.frames.push(frame);
            let complete = delivery.missing == Some(0);
            return Ok(complete.then(|| self.collecting.remove(&channel).unwrap().frames));
        }
        if self.tampering != Tampering::DropConfirms || frame.method() != Some(ACK) {
            self.client.write_all(&frame.bytes)?;
        }
        Ok(None)
    }

    fn write(&mut self, frames: &[Frame]) -> io::Result<()> {
        frames.iter().try_for_each(|frame| self.client.write_all(&frame.bytes))
    }
}

/// The same with one bit changed in the middle of each body frame.
fn corrupted(mut delivery: Vec<Frame>) -> Vec<Frame> {
    for frame in delivery.iter_mut().filter(|frame| frame.bytes[0] == 3) {
        let middle = 7 + (frame.bytes.len() - 8) / 2;
        frame.bytes[middle] ^= 1;
    }
    delivery
}
