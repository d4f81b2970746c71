//! Which numbers of a run have come, in little memory however many they are.

use std::collections::{BTreeMap, HashMap};

/// Numbers, kept as ranges.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    /// First of a range → last of it. Ranges neither overlap nor touch.
    ranges: BTreeMap<u64, u64>,
}

impl Numbers {
    /// Adds a number; whether it is new.
    pub fn insert(&mut self, number: u64) -> bool {
        let before = self.ranges.range(..=number).next_back().map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= number) {
            return false;
        }
        let first = match before {
            Some((first, last)) if last + 1 == number => first,
            _ => number,
        };
        let behind = number.checked_add(1).and_then(|next| self.ranges.remove(&next));
        self.ranges.insert(first, behind.unwrap_or(number));
        true
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| last - first + 1).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many are missing between the lowest and the highest.
    #[must_use]
    pub fn missing(&self) -> u64 {
        let ends = self.ranges.first_key_value().zip(self.ranges.last_key_value());
        ends.map_or(0, |((lowest, _), (_, highest))| highest - lowest - (self.len() - 1))
    }
}

/// What a consumer has seen of the messages of each run, by their ids.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    runs: HashMap<String, Numbers>,
    /// Messages whose id is not a striker's.
    pub strangers: u64,
    /// Messages that came at least once.
    pub distinct: u64,
    /// Messages that had come before.
    pub duplicates: u64,
}

impl Seen {
    /// Notes a message; whether it is new, as far as its id tells.
    pub fn note(&mut self, message_id: Option<&str>) -> bool {
        let Some((run, number)) = message_id.and_then(split_id) else {
            self.strangers += 1;
            self.distinct += 1;
            return true;
        };
        let new = match self.runs.get_mut(run) {
            Some(numbers) => numbers.insert(number),
            None => self.runs.entry(run.to_owned()).or_default().insert(number),
        };
        self.distinct += u64::from(new);
        self.duplicates += u64::from(!new);
        new
    }

    /// Numbers that never came, of each run between its lowest and its highest.
    #[must_use]
    pub fn missing(&self) -> u64 {
        self.runs.values().map(Numbers::missing).sum()
    }
}

/// The id of a run's message.
#[must_use]
pub fn message_id(run: &str, number: u64) -> String {
    format!("{run}.{number}")
}

fn split_id(id: &str) -> Option<(&str, u64)> {
    let (run, number) = id.rsplit_once('.')?;
    Some((run, number.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_any_order_are_counted_once_and_gaps_are_seen() {
        let mut numbers = Numbers::default();
        assert_eq!((numbers.len(), numbers.missing(), numbers.is_empty()), (0, 0, true));
        for (number, new) in
            [(5, true), (7, true), (6, true), (5, false), (7, false), (6, false), (u64::MAX, true), (0, true)]
        {
            assert_eq!(numbers.insert(number), new, "{number}");
        }
        assert_eq!(numbers.len(), 5);
        assert_eq!(numbers.missing(), u64::MAX - 4);
    }

    #[test]
    fn a_million_numbers_with_few_gaps_take_few_ranges() {
        let mut numbers = Numbers::default();
        // Two workers that take turns, and every 100,000th lost.
        for pair in 0..500_000_u64 {
            for number in [pair * 2 + 1, pair * 2] {
                if number % 100_000 != 7 {
                    numbers.insert(number);
                }
            }
        }
        assert_eq!((numbers.len(), numbers.missing()), (999_990, 10));
        assert_eq!(numbers.ranges.len(), 11);
    }

    #[test]
    fn messages_are_told_apart_by_run_and_number() {
        let mut seen = Seen::default();
        assert!(seen.note(Some("a.1")));
        assert!(seen.note(Some("b.1")));
        assert!(!seen.note(Some("a.1")));
        assert!(seen.note(Some("a.4")));
        assert!(seen.note(Some("a stranger")));
        assert!(seen.note(None));
        assert_eq!((seen.distinct, seen.duplicates, seen.missing(), seen.strangers), (5, 1, 2, 2));
    }
}
