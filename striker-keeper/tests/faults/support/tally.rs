//! What a program said at its end, as numbers.

use std::collections::HashMap;

use anyhow::{Context, Result};
use harness::End;
use serde_json::Value;

/// A tally's numbers by their names.
#[derive(Debug)]
pub(crate) struct Tally(HashMap<String, u64>);

impl Tally {
    /// From the last line of standard output, JSON or not.
    pub(crate) fn of(end: &End) -> Result<Self> {
        let line = end.stdout.last().with_context(|| format!("no tally: {end}"))?;
        let numbers = match serde_json::from_str::<Value>(line) {
            Ok(json) => json
                .as_object()
                .into_iter()
                .flatten()
                .filter_map(|(name, value)| Some((name.clone(), value.as_u64()?)))
                .collect(),
            Err(_) => numbers(line),
        };
        Ok(Self(numbers))
    }

    /// The number of this name.
    #[track_caller]
    pub(crate) fn get(&self, name: &str) -> u64 {
        *self.0.get(name).unwrap_or_else(|| panic!("no number is called {name}: {self:?}"))
    }
}

/// `3 received, 3 acked; …`: each number and the word behind it.
fn numbers(line: &str) -> HashMap<String, u64> {
    let words: Vec<_> = line.split([' ', ',', ';', ':']).filter(|word| !word.is_empty()).collect();
    let pair = |pair: &[&str]| Some((pair[1].to_owned(), pair[0].parse().ok()?));
    words.windows(2).filter_map(pair).collect()
}
