//! Free ports on the loopback interface.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Result, anyhow};

/// Ports below the range from which Linux (32768) and macOS (49152) take the local port of an outgoing
/// connection.
///
/// In that range a client that retries while the broker is down may be given the very port that it connects
/// to; the kernel then connects it to itself, and the broker finds its port taken.
const FIRST: u16 = 20_000;

/// Ports of a block.
const SIZE: u16 = 5;

/// How many blocks there are.
const BLOCKS: u16 = 2_500;

/// Ports that other software uses by default and may want later: RabbitMQ's own distribution port, MongoDB,
/// Minecraft.
const KEEP_OFF: [u16; 3] = [25_672, 27_017, 25_565];

/// The ports of a private node, next to each other.
///
/// The name service is the first process to listen and the last to end. So its port keeps the others
/// reserved among the nodes of this crate, from before the broker listens, and while it is down in the middle
/// of a test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Block {
    pub(crate) epmd: u16,
    pub(crate) distribution: u16,
    pub(crate) amqp: u16,
    pub(crate) management: u16,
    pub(crate) tls: u16,
}

impl Block {
    /// Free ports that this process did not hand out before.
    pub(crate) fn free() -> Result<Block> {
        (0..BLOCKS)
            .map(|_| next())
            .find(|&first| (first..first + SIZE).all(|port| !KEEP_OFF.contains(&port) && is_free_port(port)))
            .map(|first| Block {
                epmd: first,
                distribution: first + 1,
                amqp: first + 2,
                management: first + 3,
                tls: first + 4,
            })
            .ok_or_else(|| {
                anyhow!("no {SIZE} free ports in a row between {FIRST} and {}", FIRST + SIZE * BLOCKS)
            })
    }
}

/// A port on 127.0.0.1 on which nothing listens now, outside the range of outgoing connections.
///
/// For an extra listener of a node (streams), or for an address at which nothing answers. Each call of a
/// process gives another one; nothing keeps other processes from taking it.
pub fn free_port() -> Result<u16> {
    Ok(Block::free()?.amqp)
}

/// Whether nothing listens on `port` of the loopback addresses, of IPv4 and, where there is one, of IPv6: a
/// client that connects to `localhost` tries both.
pub(crate) fn is_free_port(port: u16) -> bool {
    let taken_v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port))
        .is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse);
    !taken_v6 && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// Walks through the blocks from a random one on, so that processes that start together begin at different
/// places.
fn next() -> u16 {
    static STEP: AtomicU16 = AtomicU16::new(0);
    static START: std::sync::OnceLock<u16> = std::sync::OnceLock::new();
    let start =
        *START.get_or_init(|| (RandomState::new().hash_one(std::process::id()) % u64::from(BLOCKS)) as u16);
    let step = STEP.fetch_add(1, Ordering::Relaxed) % BLOCKS;
    FIRST + SIZE * ((start + step) % BLOCKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_gives_other_ports() {
        let first = Block::free().unwrap();
        let second = Block::free().unwrap();
        assert_ne!(first.amqp, second.amqp);
        assert!(first.epmd >= FIRST && first.tls < FIRST + SIZE * BLOCKS);
    }

    #[test]
    fn a_port_in_use_is_not_free() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(!is_free_port(listener.local_addr().unwrap().port()));
    }
}
