//! The striker's messages and the three ways to send them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use lapin::BasicProperties;
use shared::{Connection, Error, Message, Outcome, Publisher, Shutdown, Topology, say};
use tokio::time::{MissedTickBehavior, interval};

use crate::numbers::message_id;
use crate::report::ReportArgs;
use crate::tally::StrikerTally;
use crate::{PRODUCER, ROUTING_KEY};

/// How messages are sent.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Way {
    /// with confirms, on a channel of its own for each message: slow
    NewChannel,
    /// without confirms, on one channel: fast, and what is lost is lost silently
    Reserved,
    /// with confirms, on a channel that is kept
    #[default]
    Confirmed,
}

/// What a striker is to do.
#[derive(Clone, Debug)]
pub struct Shots {
    /// Where the messages go.
    pub exchange: String,
    /// How many; `None` until the program is asked to stop.
    pub count: Option<u64>,
    /// How many in a second; 0 for as many as possible.
    pub rate: u32,
    /// Bytes of a body; shorter texts are filled up with dots.
    pub size: usize,
    /// How many without an answer at once, at least 1.
    pub in_flight: usize,
    /// How they are sent.
    pub way: Way,
    /// How often a message without a good answer is sent again.
    pub resends: u32,
}

/// The messages of one run.
pub struct Run<'r> {
    shots: &'r Shots,
    id: String,
    publisher: Publisher,
    sent: AtomicU64,
}

impl Shots {
    /// The body of a message.
    #[must_use]
    pub fn body(&self, number: u64) -> String {
        let text = format!("{PRODUCER} {number}");
        let fill = self.size.saturating_sub(text.len());
        text + &".".repeat(fill)
    }
}

/// A message as the producer makes it: persistent text with an id.
#[must_use]
pub fn shot<'m>(exchange: &'m str, routing_key: &'m str, id: &str, body: &'m str) -> Message<'m> {
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("text/plain".into())
        .with_content_encoding("utf-8".into())
        // Of a run's 32 characters and a number.
        .with_message_id(id.into());
    Message { exchange, routing_key, mandatory: true, properties, body: body.as_bytes() }
}

impl<'r> Run<'r> {
    /// A run of its own id on `connection`.
    #[must_use]
    pub fn new(shots: &'r Shots, connection: &Connection, topology: Topology) -> Self {
        let publisher = Publisher::new(connection, 1)
            .with_topology(topology)
            .with_resends(shots.resends)
            .with_window(shots.in_flight);
        Self { shots, id: shared::message_id(), publisher, sent: AtomicU64::new(0) }
    }

    /// How many messages were sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Sends all messages, at the rate that was asked for, and counts what became of each.
    ///
    /// # Errors
    /// Why the connection was given up.
    pub async fn shoot(
        &self,
        report: ReportArgs,
        shutdown: &Shutdown,
        tally: &mut StrikerTally,
    ) -> shared::Result<()> {
        let in_flight = u64::try_from(self.shots.in_flight).unwrap_or(u64::MAX);
        let mut pace = (self.shots.rate > 0).then(|| {
            let seconds = in_flight as f64 / f64::from(self.shots.rate);
            let mut pace = interval(Duration::from_secs_f64(seconds.max(1e-6)));
            pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
            pace
        });
        let mut next = 1;
        while !shutdown.is_requested() && self.shots.count.is_none_or(|count| next <= count) {
            if let Some(pace) = &mut pace {
                tokio::select! {
                    _ = pace.tick() => {}
                    () = shutdown.requested() => break,
                }
            }
            let last = self.shots.count.unwrap_or(u64::MAX).min(next.saturating_add(in_flight - 1));
            let numbers = next..=last;
            next = last + 1;
            let bodies: Vec<_> = numbers.clone().map(|number| self.shots.body(number)).collect();
            let ids: Vec<_> = numbers.map(|number| message_id(&self.id, number)).collect();
            let messages: Vec<_> = ids
                .iter()
                .zip(&bodies)
                .map(|(id, body)| shot(&self.shots.exchange, ROUTING_KEY, id, body))
                .collect();
            let outcomes = self.send(&messages).await;
            self.sent.fetch_add(messages.len() as u64, Ordering::Relaxed);
            for (body, outcome) in bodies.iter().zip(&outcomes) {
                note(outcome.as_ref(), body, report, tally);
            }
            tally.resent = self.publisher.resent();
            if let Some(error) = outcomes.into_iter().flatten().find_map(hopeless) {
                return Err(error);
            }
        }
        // Without confirms nobody knows whether the broker has read them; the connection's end might come first.
        if let Err(error) = self.publisher.flush().await {
            tracing::warn!("the last messages may be lost: {error}");
        }
        Ok(())
    }

    /// The outcome of each message; `None` where nobody asked for it.
    async fn send(&self, messages: &[Message<'_>]) -> Vec<Option<Outcome>> {
        match self.shots.way {
            Way::Confirmed => self.publisher.publish_batch(messages).await.into_iter().map(Some).collect(),
            Way::NewChannel => {
                let mut outcomes = Vec::new();
                for message in messages {
                    outcomes.push(Some(self.publisher.publish_on_new_channel(message).await));
                }
                outcomes
            }
            Way::Reserved => {
                let written = self.publisher.publish_unconfirmed(messages).await;
                messages.iter().map(|_| written.clone().err().map(Outcome::Unknown)).collect()
            }
        }
    }
}

/// What no further message can overcome either.
fn hopeless(outcome: Outcome) -> Option<Error> {
    match outcome {
        Outcome::NotSent(error) | Outcome::Unknown(error) => {
            // Forbidden; or refused as it is, and all of them are alike: too large, say.
            let refused = matches!(error.code(), Some(403 | 406));
            (refused || matches!(error, Error::Closed(_) | Error::Usage(_))).then_some(error)
        }
        _ => None,
    }
}

fn note(outcome: Option<&Outcome>, body: &str, report: ReportArgs, tally: &mut StrikerTally) {
    match outcome {
        Some(outcome) => tally.count(outcome),
        None => {
            tally.sent += 1;
            tally.unconfirmed += 1;
        }
    }
    if report.each_message() {
        let end = match outcome {
            None => "written".to_owned(),
            Some(Outcome::Confirmed) => "confirmed".to_owned(),
            Some(Outcome::Returned { code, text }) => format!("returned: {code} {text}"),
            Some(Outcome::Nacked) => "nacked".to_owned(),
            Some(Outcome::NotSent(cause)) => format!("not sent: {cause}"),
            Some(Outcome::Unknown(cause)) => format!("unknown: {cause}"),
        };
        say!(" [x] {body} ({end})");
    }
}
