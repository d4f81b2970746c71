//! Messages in flight together on one channel, and whose fate is whose.
//!
//! lapin hands a returned message to whichever confirm comes next. Once all confirms of a window are in, all
//! its returns are too, and each is known by its message id.

use std::collections::{HashMap, HashSet};

use futures_util::FutureExt;
use lapin::message::BasicReturnMessage;
use lapin::options::BasicPublishOptions;
use lapin::{Channel, Confirmation, ErrorKind, PublisherConfirm};

use crate::{Error, Message, Outcome, Result};

/// The most bytes of bodies in a window, unless a single message has more.
const BYTES: usize = 16 << 20;

/// What is known about a message so far.
enum Fate {
    NotWritten,
    InDoubt,
    Acked,
    Nacked,
    Settled(Outcome),
}

impl Fate {
    /// Whether an answer is missing.
    fn is_open(&self) -> bool {
        matches!(self, Self::NotWritten | Self::InDoubt | Self::Settled(Outcome::Unknown(_)))
    }
}

/// The messages of one window and what is known about them. It outlives the future that works on it.
pub(crate) struct Window<'w, 'm> {
    messages: &'w [Message<'m>],
    /// Whether other messages are in flight on the same channel.
    among_others: bool,
    fates: Vec<Fate>,
    /// Those that are still waited for.
    confirms: Vec<(usize, PublisherConfirm)>,
    returned: Vec<BasicReturnMessage>,
}

/// Cuts messages into windows of at most `most` messages, and few enough bytes to hold in memory.
pub(crate) fn windows<'w, 'm>(
    mut rest: &'w [Message<'m>],
    most: usize,
) -> impl Iterator<Item = &'w [Message<'m>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fit = rest.iter().take(most).take_while(|message| {
            bytes = bytes.saturating_add(message.body.len());
            bytes <= BYTES
        });
        let size = fit.count().max(1).min(rest.len());
        let (window, behind) = rest.split_at(size);
        rest = behind;
        (!window.is_empty()).then_some(window)
    })
}

impl<'w, 'm> Window<'w, 'm> {
    /// The mandatory ones of several messages must each have an id of its own.
    pub(crate) fn new(messages: &'w [Message<'m>]) -> Self {
        let mut ids = HashSet::new();
        let fates = messages.iter().map(|message| {
            if messages.len() > 1 && message.mandatory && !ids.insert(message.id()) {
                let words = "two mandatory messages of one batch have the same message id";
                return Fate::Settled(Outcome::NotSent(Error::usage(words)));
            }
            Fate::NotWritten
        });
        let fates = fates.collect();
        Self { messages, among_others: false, fates, confirms: Vec::new(), returned: Vec::new() }
    }

    /// Messages that share their channel with others. None of them may be mandatory.
    pub(crate) fn among_others(messages: &'w [Message<'m>]) -> Self {
        Self { among_others: true, ..Self::new(messages) }
    }

    /// Writes all messages to a channel in confirm mode, then waits for all confirms.
    pub(crate) async fn publish(&mut self, channel: &Channel) {
        self.write(channel).await;
        // The last one first: most others are there by then, and each that is waited for costs a wake-up.
        while let Some((place, confirm)) = self.confirms.last_mut() {
            let (place, answer) = (*place, confirm.await);
            self.confirms.pop();
            self.note(place, answer);
        }
    }

    /// Writes those that were not found wrong already.
    async fn write(&mut self, channel: &Channel) {
        let mut writes = Vec::with_capacity(self.messages.len());
        for (place, message) in self.messages.iter().enumerate() {
            if !matches!(self.fates[place], Fate::NotWritten) {
                continue;
            }
            self.fates[place] = match start_write(channel, message, message.mandatory) {
                Ok(write) => {
                    writes.push((place, write));
                    Fate::InDoubt
                }
                Err(error) => Fate::Settled(Outcome::NotSent(error)),
            };
        }
        // lapin writes them in order: once the last one is written, all are.
        for (place, write) in writes.into_iter().rev() {
            match write.await {
                Ok(confirm) => self.confirms.push((place, confirm)),
                Err(cause) => self.fates[place] = Fate::Settled(self.not_written(cause)),
            }
        }
        self.confirms.reverse();
    }

    fn note(&mut self, place: usize, answer: lapin::Result<Confirmation>) {
        let (fate, returned) = match answer {
            Ok(Confirmation::Ack(returned)) => (Fate::Acked, returned),
            Ok(Confirmation::Nack(returned)) => (Fate::Nacked, returned),
            Ok(Confirmation::NotRequested) => (Fate::InDoubt, None),
            Err(cause) => (Fate::Settled(self.not_confirmed(cause)), None),
        };
        self.fates[place] = fate;
        self.returned.extend(returned);
    }

    /// Notes the answers that are there, where the others are no longer waited for.
    fn note_answered(&mut self) {
        for (place, confirm) in std::mem::take(&mut self.confirms) {
            if let Some(answer @ Ok(_)) = confirm.now_or_never() {
                self.note(place, answer);
            }
        }
    }

    /// What an error in place of a write says about one message.
    fn not_written(&self, cause: lapin::Error) -> Outcome {
        match cause.kind() {
            // Found closed before all of it was written.
            ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_) => {
                Outcome::NotSent(Error::Refused { step: "publish a message", cause })
            }
            _ => self.not_confirmed(cause),
        }
    }

    /// What an error in place of a confirm says about one message.
    fn not_confirmed(&self, cause: lapin::Error) -> Outcome {
        // The only message in flight is the one that the broker refused.
        if cause.is_amqp_soft_error() && self.messages.len() == 1 && !self.among_others {
            Outcome::NotSent(Error::Refused { step: "publish a message", cause })
        } else {
            Outcome::Unknown(Error::Refused { step: "get a confirm", cause })
        }
    }

    /// What became of each message. `late` is why the answers were no longer waited for, if so.
    pub(crate) fn outcomes(mut self, late: Option<Error>) -> Vec<Outcome> {
        self.note_answered();
        // An answer that is worth nothing without another one is missing for the other one's reason.
        let missing = self.fates.iter().find_map(|fate| match fate {
            Fate::Settled(Outcome::Unknown(error)) => Some(error.clone()),
            _ => None,
        });
        let cause = late.or(missing).unwrap_or(Error::Stopped);
        let is_complete = !self.fates.iter().any(Fate::is_open);
        let ids = self.returned.iter().filter_map(|returned| {
            let id = returned.delivery.properties.message_id().as_ref()?;
            Some((id, returned))
        });
        let by_id: HashMap<_, _> = ids.collect();
        let return_of = |message: &Message<'_>| match self.messages {
            [_alone] => self.returned.first(),
            _ => by_id.get(message.id()?).copied(),
        };
        let outcome = |(message, fate): (&Message<'_>, Fate)| match fate {
            Fate::Settled(outcome) => outcome,
            Fate::NotWritten => Outcome::NotSent(cause.clone()),
            Fate::Nacked => Outcome::Nacked,
            Fate::Acked | Fate::InDoubt => match return_of(message).filter(|_| message.mandatory) {
                Some(returned) => Outcome::from(returned),
                None if fate.is_open() => Outcome::Unknown(cause.clone()),
                // Its return may still be waiting for another message's confirm.
                None if message.mandatory && !is_complete => Outcome::Unknown(cause.clone()),
                None => Outcome::Confirmed,
            },
        };
        self.messages.iter().zip(self.fates).map(outcome).collect()
    }
}

/// Writes all messages to a channel that is not in confirm mode.
pub(crate) async fn write_unconfirmed(channel: &Channel, messages: &[Message<'_>]) -> Result<()> {
    let mut writes = Vec::with_capacity(messages.len());
    for message in messages {
        writes.push(start_write(channel, message, false)?);
    }
    // The last one first, as above.
    for write in writes.into_iter().rev() {
        let written = async { write.await?.await };
        // lapin keeps what is not awaited, confirm or not.
        written.await.map_err(|cause| Error::Refused { step: "write a message", cause })?;
    }
    Ok(())
}

/// Hands a message to lapin, which need not wake anybody for it; what is returned resolves once it is written
/// to the socket. To wait for each write before the next message costs a third of the pace.
fn start_write<'c>(
    channel: &'c Channel,
    message: &'c Message<'_>,
    mandatory: bool,
) -> Result<impl Future<Output = lapin::Result<PublisherConfirm>> + 'c> {
    let (exchange, routing_key) = message.address()?;
    let options = BasicPublishOptions { mandatory, ..BasicPublishOptions::default() };
    let properties = message.properties.clone();
    let mut write = Box::pin(channel.basic_publish(exchange, routing_key, options, message.body, properties));
    let done = write.as_mut().now_or_never();
    Ok(async move {
        match done {
            Some(done) => done,
            None => write.await,
        }
    })
}

#[cfg(test)]
mod tests {
    use lapin::{BasicProperties, ConnectionState};

    use super::*;

    fn message(id: &str, mandatory: bool, body: &'static [u8]) -> Message<'static> {
        let properties = BasicProperties::default().with_message_id(id.into());
        Message { exchange: "", routing_key: "q", mandatory, properties, body }
    }

    #[test]
    fn windows_keep_the_order_and_hold_neither_too_many_messages_nor_too_many_bytes() {
        let huge: &[u8] = Box::leak(vec![0; BYTES + 1].into());
        let half: &[u8] = &huge[..BYTES / 2];
        let bodies = [&b"1"[..], b"2", b"3", b"4", huge, half, half, b"8"];
        let messages: Vec<_> =
            bodies.iter().map(|body| Message { body, ..message("id", false, b"") }).collect();
        let sizes: Vec<_> = windows(&messages, 3).map(<[_]>::len).collect();
        assert_eq!(sizes, [3, 1, 1, 2, 1]);
        assert_eq!(windows(&[], 3).count(), 0);
    }

    #[test]
    fn without_all_confirms_a_mandatory_message_is_not_called_confirmed() {
        let messages = [message("1", true, b""), message("2", false, b""), message("3", true, b"")];
        let lost = Error::Nacked;
        let outcomes = |fates| Window { fates, ..Window::new(&messages) }.outcomes(Some(lost.clone()));

        let complete = outcomes(vec![Fate::Acked, Fate::Nacked, Fate::Acked]);
        assert!(
            matches!(complete[..], [Outcome::Confirmed, Outcome::Nacked, Outcome::Confirmed]),
            "{complete:?}"
        );
        // The return of the first may still be waiting for the confirm of the third.
        let cut = outcomes(vec![Fate::Acked, Fate::Acked, Fate::InDoubt]);
        assert!(matches!(cut[..], [Outcome::Unknown(_), Outcome::Confirmed, Outcome::Unknown(_)]), "{cut:?}");
        let unwritten = outcomes(vec![Fate::Acked, Fate::NotWritten, Fate::NotWritten]);
        assert!(
            matches!(unwritten[..], [Outcome::Unknown(_), Outcome::NotSent(_), Outcome::NotSent(_)]),
            "{unwritten:?}"
        );
    }

    #[test]
    fn a_connection_that_was_found_closed_says_something_only_about_what_was_not_written() {
        let closed = || lapin::Error::from(ErrorKind::InvalidConnectionState(ConnectionState::Closed));
        let messages = [message("1", false, b"")];
        let unwritten = Window::new(&messages).not_written(closed());
        assert!(matches!(unwritten, Outcome::NotSent(_)), "{unwritten:?}");
        let mut written = Window { fates: vec![Fate::InDoubt], ..Window::new(&messages) };
        written.note(0, Err(closed()));
        let outcomes = written.outcomes(None);
        assert!(matches!(outcomes[..], [Outcome::Unknown(_)]), "{outcomes:?}");
    }

    #[test]
    fn an_answer_that_is_worth_nothing_alone_is_missing_for_the_other_ones_reason() {
        let messages = [message("1", true, b""), message("2", true, b"")];
        let fates = vec![Fate::Acked, Fate::Settled(Outcome::Unknown(Error::Nacked))];
        let outcomes = Window { fates, ..Window::new(&messages) }.outcomes(None);
        assert!(
            matches!(outcomes[..], [Outcome::Unknown(Error::Nacked), Outcome::Unknown(Error::Nacked)]),
            "{outcomes:?}"
        );
    }
}
