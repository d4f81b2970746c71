//! Publisher confirms: the broker answers each message, and returns those that no queue wants.

use std::collections::VecDeque;
use std::num::NonZero;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation, PublisherConfirm};
use shared::{Deadline, Error, Result, Session};
use tokio::time::timeout;

use crate::tx::PERSISTENT;
use crate::{Fate, Ledger};

/// How many messages may be without an answer at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Strategy {
    /// One: the next message waits for the answer to the one before. Each costs a round trip, and where
    /// it is persistent, a write to disk of its own.
    Each,
    /// A batch: all of it is published, then all answers are waited for.
    Batch(NonZero<usize>),
    /// A window that slides: once it is full, each further message waits for the oldest answer.
    Windowed(NonZero<usize>),
}

/// Where the messages go.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The queue that gets them.
    pub queue: String,
    /// Every so-many-th message gets a routing key that leads to no queue. `None`: they all arrive.
    pub unroutable_every: Option<NonZero<usize>>,
    /// How many go ahead of their answers.
    pub strategy: Strategy,
}

/// Publishes what the ledger has left, each message mandatory, and writes down what becomes of it.
///
/// Stops early, with all answers that can still be had, when the program is asked to. After an error the
/// ledger says which messages are unknown, and another session can go on with the rest.
///
/// # Errors
/// [`Error::Refused`] or [`Error::Timeout`], mostly because the connection was lost.
pub async fn publish_all(session: &Session, plan: &Plan, ledger: &mut Ledger) -> Result<()> {
    let select = session.channel.confirm_select(ConfirmSelectOptions::default());
    select.deadline("switch on publisher confirms").await?;
    let size = match plan.strategy {
        Strategy::Each => 1,
        Strategy::Batch(size) | Strategy::Windowed(size) => size.get(),
    };
    let mut flight = Flight { plan, ledger, size, open: VecDeque::new(), answered: VecDeque::new() };
    let published = flight.publish_all(session).await;
    if published.is_err() {
        flight.salvage().await;
    }
    published
}

/// The messages on their way: published in one order, and answered in the same order.
struct Flight<'a> {
    plan: &'a Plan,
    ledger: &'a mut Ledger,
    /// The most messages in `open`.
    size: usize,
    /// Published and not answered yet.
    open: VecDeque<(usize, PublisherConfirm)>,
    /// Answered, but the answer is not final yet.
    answered: VecDeque<(usize, Fate)>,
}

impl Flight<'_> {
    async fn publish_all(&mut self, session: &Session) -> Result<()> {
        while !session.shutdown().is_requested()
            && let Some(number) = self.ledger.send_next()
        {
            let confirm = self.publish(session, number).await?;
            self.open.push_back((number, confirm));
            if self.open.len() == self.size {
                match self.plan.strategy {
                    Strategy::Each | Strategy::Batch(_) => self.land_all().await?,
                    Strategy::Windowed(_) => self.land_oldest().await?,
                }
            }
        }
        self.land_all().await
    }

    async fn publish(&self, session: &Session, number: usize) -> Result<PublisherConfirm> {
        let id = self.ledger.id(number);
        let unroutable = self.plan.unroutable_every.is_some_and(|every| number.is_multiple_of(every.get()));
        // No queue has a message's id for its name.
        let key = if unroutable { &id } else { &self.plan.queue };
        let properties = BasicProperties::default()
            .with_content_type("text/plain".into())
            .with_delivery_mode(PERSISTENT)
            .with_message_id(id.as_str().into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let published =
            session.channel.basic_publish("".into(), key.as_str().into(), options, id.as_bytes(), properties);
        published.deadline("publish a message").await
    }

    /// Waits for the answer to the oldest message.
    async fn land_oldest(&mut self) -> Result<()> {
        let Some((number, confirm)) = self.open.pop_front() else { return Ok(()) };
        let answer = confirm.deadline("get the broker's confirm").await?;
        let fate = self.read(answer)?;
        self.answered.push_back((number, fate));
        // A return may come with the answer to any message that was open beside its own, so an answer is
        // final once all of those are in.
        if self.answered.len() >= self.size
            && let Some((number, fate)) = self.answered.pop_front()
        {
            self.ledger.settle(number, fate);
        }
        Ok(())
    }

    /// Waits for all answers.
    async fn land_all(&mut self) -> Result<()> {
        while !self.open.is_empty() {
            self.land_oldest().await?;
        }
        self.settle_answered();
        Ok(())
    }

    fn settle_answered(&mut self) {
        for (number, fate) in self.answered.drain(..) {
            self.ledger.settle(number, fate);
        }
    }

    /// Reads an answer. The broker returns a message before it confirms it, but lapin hands a return to
    /// whichever confirm it completes next: whose it is, only the message itself can tell.
    fn read(&mut self, answer: Confirmation) -> Result<Fate> {
        let fate = match &answer {
            Confirmation::Ack(_) => Fate::Confirmed,
            Confirmation::Nack(_) => Fate::Nacked,
            Confirmation::NotRequested => return Err(Error::own("the channel is not in confirm mode")),
        };
        if let Some(returned) = answer.take_message()
            && let Some(id) = returned.delivery.properties.message_id()
            && let Some(number) = self.ledger.number(id.as_str())
        {
            self.ledger.settle(number, Fate::Returned);
        }
        Ok(fate)
    }

    /// After an error: takes the answers that are there already, and leaves the rest unknown.
    async fn salvage(&mut self) {
        while let Some((number, confirm)) = self.open.pop_front() {
            let answer = timeout(Duration::ZERO, confirm).await;
            if let Ok(Ok(answer)) = answer
                && let Ok(Fate::Nacked) = self.read(answer)
            {
                // A refusal is final. An ack behind a gap is not: its return may be lost with the gap.
                self.ledger.settle(number, Fate::Nacked);
            }
        }
        self.settle_answered();
    }
}
