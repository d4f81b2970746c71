//! Bodies of all sizes, and many of them in order.

use shared::Result;

use super::of_features;
use super::queues::declare;
use crate::check::{Check, Finding, fault, pass};
use crate::messages::{consume, expect_only, next, publish_all, publish_bytes};
use crate::trial::{Trial, random_word};

pub(super) const CHECKS: &[Check] = &[
    of_features("frame-boundary", "bodies that just fit into a frame, and just do not", |trial| {
        Box::pin(sizes(trial, boundaries()))
    }),
    of_features("large-body", "a body of 1 MiB", |trial| Box::pin(sizes(trial, vec![1024 * 1024]))),
    of_features("binary-body", "an empty body, and every byte there is", |trial| Box::pin(binary(trial))),
    of_features("order", "1000 messages in order", |trial| Box::pin(order(trial))),
];

/// The largest frames: this program's own, and RabbitMQ's usual one.
const FRAMES: [usize; 2] = [16_384, 131_072];

/// Bytes of a frame around the part of the body in it.
const OVERHEAD: usize = 8;

/// Sizes around one and two full frames.
fn boundaries() -> Vec<usize> {
    let full = FRAMES.into_iter().flat_map(|frame| [frame - OVERHEAD, 2 * (frame - OVERHEAD)]);
    full.flat_map(|size| [size - 1, size, size + 1]).collect()
}

/// So many bytes, unlike those of any other message and of any other place in this one.
fn filled(size: usize) -> Vec<u8> {
    let word = random_word();
    let numbered = (0_u64..).flat_map(|number| format!("{word}{number}").into_bytes());
    numbered.take(size).collect()
}

async fn sizes(trial: Trial, sizes: Vec<usize>) -> Result<Finding> {
    send_each(&trial, sizes.iter().map(|size| filled(*size)).collect()).await?;
    match &sizes[..] {
        [size] => pass(format!("{size} bytes")),
        _ => pass(format!("{} sizes", sizes.len())),
    }
}

async fn binary(trial: Trial) -> Result<Finding> {
    let every: Vec<u8> = (0..=u8::MAX).chain(b"\xce\0AMQP\0\0\x09\x01\xce".iter().copied()).collect();
    send_each(&trial, vec![Vec::new(), every, "grüße 你好 🐇".as_bytes().to_vec()]).await?;
    pass("empty, binary and UTF-8")
}

async fn send_each(trial: &Trial, bodies: Vec<Vec<u8>>) -> Result<()> {
    let sent = trial.alone(async |session| {
        let channel = &session.channel;
        let queue = declare(trial, channel, "bodies").await?;
        let mut consumer = consume(trial, channel, &queue).await?;
        for body in &bodies {
            publish_bytes(trial, channel, "", &queue, body).await?;
            let message = next(trial, &mut consumer).await?;
            if let Some(difference) = difference(body, &message.data) {
                let expected = format!("a body of {} bytes as it was sent", body.len());
                let next = "something between this program and the broker changes messages";
                return Err(fault(expected, difference, next));
            }
        }
        expect_only(trial, channel, &mut consumer, &[]).await
    });
    sent.await.map(drop)
}

/// How a body differs from what was sent, if it does.
fn difference(sent: &[u8], received: &[u8]) -> Option<String> {
    if sent.len() != received.len() {
        return Some(format!("one of {} bytes", received.len()));
    }
    let at = sent.iter().zip(received).position(|(sent, received)| sent != received)?;
    Some(format!("byte {at} changed from {:#04x} to {:#04x}", sent[at], received[at]))
}

const MANY: usize = 1000;

async fn order(trial: Trial) -> Result<Finding> {
    let stem = trial.payload("number");
    let bodies: Vec<_> = (1..=MANY).map(|number| format!("{stem} {number}")).collect();
    let sent = trial.alone(async |session| {
        let channel = &session.channel;
        let queue = declare(&trial, channel, "ordered").await?;
        publish_all(&trial, channel, &queue, &bodies).await?;
        let mut consumer = consume(&trial, channel, &queue).await?;
        expect_only(&trial, channel, &mut consumer, &bodies).await
    });
    sent.await?;
    pass(format!("{MANY} messages"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_lie_on_both_sides_of_each_boundary() {
        assert_eq!(boundaries()[..6], [16_375, 16_376, 16_377, 32_751, 32_752, 32_753]);
        assert_eq!(boundaries().len(), 12);
    }

    #[test]
    fn bodies_are_filled_with_what_stands_nowhere_else() {
        let (one, two) = (filled(100), filled(100));
        assert_eq!(one.len(), 100);
        assert_ne!(one, two);
        assert_ne!(one[..50], one[50..]);
    }

    #[test]
    fn a_difference_is_named() {
        assert_eq!(difference(b"abc", b"abc"), None);
        assert_eq!(difference(b"abc", b"ab").unwrap(), "one of 2 bytes");
        assert_eq!(difference(b"abc", b"aBc").unwrap(), "byte 1 changed from 0x62 to 0x42");
    }
}
