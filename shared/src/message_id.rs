//! Ids that no other process makes up too.

use rand::distr::{Alphanumeric, SampleString};

/// A new id of 32 letters and digits from the operating system's randomness, for `message_id` and
/// `correlation_id`.
#[must_use]
pub fn message_id() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_32_letters_and_digits_and_never_the_same() {
        let ids: HashSet<_> = (0..10_000).map(|_| message_id()).collect();
        assert_eq!(ids.len(), 10_000);
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    }
}
