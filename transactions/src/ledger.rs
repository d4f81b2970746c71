//! What became of each message: written down by the publisher, then held against what arrived.

use std::collections::HashMap;
use std::fmt;

use shared::message_id;

/// How many copies of each message arrived, by `message_id`.
pub type Arrivals = HashMap<String, usize>;

/// What the publisher knows about a message that it sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// No final answer came: it may or may not have arrived.
    Unknown,
    /// The broker has taken responsibility for it.
    Confirmed,
    /// It was mandatory and no queue wanted it.
    Returned,
    /// The broker could not take it, for instance because a queue is full.
    Nacked,
}

/// The messages of a run, numbered from 1, and what is known of each. It outlives lost connections.
#[derive(Debug)]
pub struct Ledger {
    run: String,
    messages: usize,
    /// Of the messages that were sent, in order.
    fates: Vec<Fate>,
}

/// What arrived is not what the publisher was told.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
#[error("what arrived is not what the broker said: {0}")]
pub struct Mismatch(String);

impl Ledger {
    /// A ledger for so many messages, none of them sent yet.
    #[must_use]
    pub fn new(messages: usize) -> Self {
        Self { run: message_id(), messages, fates: Vec::new() }
    }

    /// The `message_id` of a message: unlike those of any other run, and the number can be read in it.
    #[must_use]
    pub fn id(&self, number: usize) -> String {
        format!("{}-{number}", self.run)
    }

    /// The number of the message with this `message_id`, if it is one of this run that was sent.
    #[must_use]
    pub fn number(&self, id: &str) -> Option<usize> {
        let number = id.strip_prefix(&self.run)?.strip_prefix('-')?.parse().ok()?;
        (1..=self.sent()).contains(&number).then_some(number)
    }

    /// The number of the next message to send. From now on it counts as sent, and its fate as unknown:
    /// whoever is interrupted later has nothing left to write down.
    pub fn send_next(&mut self) -> Option<usize> {
        if self.sent() == self.messages {
            return None;
        }
        self.fates.push(Fate::Unknown);
        Some(self.sent())
    }

    /// How many messages were sent.
    #[must_use]
    pub fn sent(&self) -> usize {
        self.fates.len()
    }

    /// Writes down the broker's answer to a message that was sent. One that came back stays returned: its
    /// confirm, which comes as well, only says that the broker is done with it.
    pub fn settle(&mut self, number: usize, fate: Fate) {
        let known = number.checked_sub(1).and_then(|index| self.fates.get_mut(index));
        if let Some(known) = known.filter(|known| **known == Fate::Unknown) {
            *known = fate;
        }
    }

    /// Writes down one answer to all messages that have none, as a commit is.
    pub fn settle_all(&mut self, fate: Fate) {
        (1..=self.sent()).for_each(|number| self.settle(number, fate));
    }

    /// The numbers of the messages with this fate, in order.
    #[must_use]
    pub fn with(&self, fate: Fate) -> Vec<usize> {
        self.filter(|known, _| known == fate)
    }

    /// The messages with this fate for a person: how many, and the numbers of the first of them.
    #[must_use]
    pub fn list(&self, fate: Fate) -> String {
        Numbers(&self.with(fate)).to_string()
    }

    /// Holds the ledger against what arrived: every confirmed message once, an unknown one once or not at
    /// all, and no other. Returns how many of the unknown ones arrived.
    ///
    /// # Errors
    /// [`Mismatch`] says which messages were lost, doubled, or should not be there.
    pub fn compare(&self, arrivals: &Arrivals) -> Result<usize, Mismatch> {
        let mut copies = vec![0; self.sent()];
        let mut strangers = 0;
        for (id, count) in arrivals {
            match self.number(id) {
                Some(number) => copies[number - 1] = *count,
                None => strangers += count,
            }
        }
        let pick = |wrong: fn(Fate, usize) -> bool| self.filter(|fate, index| wrong(fate, copies[index]));
        let mut complaints = Vec::new();
        for (word, numbers) in [
            ("lost", pick(|fate, copies| fate == Fate::Confirmed && copies == 0)),
            ("doubled", pick(|_, copies| copies > 1)),
            (
                "there although refused",
                pick(|fate, copies| matches!(fate, Fate::Returned | Fate::Nacked) && copies > 0),
            ),
        ] {
            if !numbers.is_empty() {
                complaints.push(format!("{word}: {}", Numbers(&numbers)));
            }
        }
        if strangers > 0 {
            complaints.push(format!("never sent: {strangers}"));
        }
        if !complaints.is_empty() {
            return Err(Mismatch(complaints.join("; ")));
        }
        Ok(pick(|fate, copies| fate == Fate::Unknown && copies > 0).len())
    }

    /// The numbers of the messages that pass a test on their fate and index.
    fn filter(&self, pass: impl Fn(Fate, usize) -> bool) -> Vec<usize> {
        let indexed = self.fates.iter().enumerate();
        indexed.filter(|(index, fate)| pass(**fate, *index)).map(|(index, _)| index + 1).collect()
    }
}

/// How many messages, and the numbers of the first of them.
struct Numbers<'n>(&'n [usize]);

impl fmt::Display for Numbers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        write!(f, "{}", self.0.len())?;
        let shown: Vec<_> = self.0.iter().take(SHOWN).map(ToString::to_string).collect();
        match self.0.len() {
            0 => Ok(()),
            1..=SHOWN => write!(f, " ({})", shown.join(", ")),
            more => write!(f, " ({} and {} more)", shown.join(", "), more - SHOWN),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four messages with the four fates, in the order of their declaration.
    fn one_of_each() -> Ledger {
        let mut ledger = Ledger::new(5);
        for fate in [Fate::Unknown, Fate::Confirmed, Fate::Returned, Fate::Nacked] {
            let number = ledger.send_next().unwrap();
            ledger.settle(number, fate);
        }
        ledger
    }

    fn arrived(ledger: &Ledger, copies: &[(usize, usize)]) -> Arrivals {
        copies.iter().map(|(number, count)| (ledger.id(*number), *count)).collect()
    }

    #[test]
    fn a_message_is_unknown_from_the_moment_it_is_sent_until_it_is_settled_once() {
        let mut ledger = Ledger::new(2);
        assert_eq!(ledger.send_next(), Some(1));
        assert_eq!(ledger.with(Fate::Unknown), [1]);
        ledger.settle(1, Fate::Returned);
        ledger.settle(1, Fate::Confirmed);
        ledger.settle(7, Fate::Confirmed);
        ledger.settle(0, Fate::Confirmed);
        assert_eq!(ledger.with(Fate::Returned), [1]);
        assert_eq!(ledger.send_next(), Some(2));
        assert_eq!(ledger.send_next(), None);
    }

    #[test]
    fn ids_lead_back_to_the_number_in_the_same_run_only() {
        let ledger = one_of_each();
        assert_eq!(ledger.number(&ledger.id(3)), Some(3));
        assert_eq!(ledger.number(&ledger.id(5)), None, "not sent");
        assert_eq!(Ledger::new(9).number(&ledger.id(3)), None);
        assert_eq!(ledger.number(""), None);
    }

    #[test]
    fn confirmed_messages_must_arrive_once_and_unknown_ones_may() {
        let ledger = one_of_each();
        for (copies, expected) in [
            (&[(2, 1)][..], Ok(0)),
            (&[(1, 1), (2, 1)], Ok(1)),
            (&[], Err("lost: 1 (2)")),
            (&[(2, 2)], Err("doubled: 1 (2)")),
            (&[(1, 2), (2, 1)], Err("doubled: 1 (1)")),
            (&[(2, 1), (3, 1), (4, 1)], Err("there although refused: 2 (3, 4)")),
            (&[(2, 1), (5, 1)], Err("never sent: 1")),
            (&[(3, 1)], Err("lost: 1 (2); there although refused: 1 (3)")),
        ] {
            let found = ledger.compare(&arrived(&ledger, copies)).map_err(|mismatch| mismatch.0);
            assert_eq!(found, expected.map_err(str::to_owned), "{copies:?}");
        }
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(Numbers(&[]).to_string(), "0");
        assert_eq!(Numbers(&[3, 5]).to_string(), "2 (3, 5)");
        let many: Vec<_> = (1..=22).collect();
        assert!(Numbers(&many).to_string().ends_with("19, 20 and 2 more)"));
    }
}
