//! Which of the numbered messages have come, and how often.

/// What a contestant's run has shown.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Faults {
    /// Messages that should have come and did not.
    pub(crate) lost: usize,
    /// Copies too many.
    pub(crate) doubled: usize,
    /// Messages that nobody sent, or that were to come back and came all the same.
    pub(crate) foreign: usize,
}

impl Faults {
    pub(crate) fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The copies of each number from 0.
pub(crate) struct Seen {
    copies: Vec<u32>,
    foreign: usize,
    distinct: usize,
}

impl Seen {
    /// For so many numbers, none of which was seen yet.
    pub(crate) fn new(numbers: usize) -> Self {
        Self { copies: vec![0; numbers], foreign: 0, distinct: 0 }
    }

    /// Notes a message; `None` for one that has no number.
    pub(crate) fn note(&mut self, number: Option<usize>) {
        match number.and_then(|number| self.copies.get_mut(number)) {
            Some(copies) => {
                *copies += 1;
                self.distinct += usize::from(*copies == 1);
            }
            None => self.foreign += 1,
        }
    }

    /// How many different ones came.
    pub(crate) fn distinct(&self) -> usize {
        self.distinct
    }

    /// What is wrong if exactly those numbers should have come once for which `expected` holds.
    pub(crate) fn faults(&self, expected: impl Fn(usize) -> bool) -> Faults {
        let mut faults = Faults { foreign: self.foreign, ..Faults::default() };
        for (number, copies) in self.copies.iter().enumerate() {
            match (expected(number), *copies as usize) {
                (true, 0) => faults.lost += 1,
                (true, copies) => faults.doubled += copies - 1,
                (false, copies) => faults.foreign += copies,
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(numbers: &[Option<usize>]) -> Faults {
        let mut seen = Seen::new(4);
        numbers.iter().for_each(|number| seen.note(*number));
        seen.faults(|number| number != 3)
    }

    #[test]
    fn a_loss_a_double_and_a_stranger_are_each_counted() {
        assert!(seen(&[Some(2), Some(0), Some(1)]).is_none());
        assert_eq!(seen(&[Some(0), Some(2)]), Faults { lost: 1, ..Faults::default() });
        assert_eq!(seen(&[Some(0), Some(1), Some(2), Some(1)]), Faults { doubled: 1, ..Faults::default() });
        // A double does not make up for a loss.
        assert_eq!(seen(&[Some(0), Some(1), Some(1)]), Faults { lost: 1, doubled: 1, foreign: 0 });
        for stranger in [Some(3), Some(4), None] {
            let faults = seen(&[Some(0), Some(1), Some(2), stranger]);
            assert_eq!(faults, Faults { foreign: 1, ..Faults::default() }, "{stranger:?}");
        }
    }
}
