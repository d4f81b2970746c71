//! The remote procedure: Fibonacci numbers, checked.

/// Why there is no Fibonacci number for a request.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum FibError {
    /// The request is not a whole number of at least 0.
    #[error("'{0}' is not a whole number from 0 to 93")]
    NotANumber(String),
    /// The result does not fit in 64 bits.
    #[error("fib({0}) does not fit in 64 bits: 93 is the last that does")]
    TooLarge(u64),
}

/// The `n`th Fibonacci number, with fib(0) = 0 and fib(1) = 1.
///
/// Added up from below: the recursive definition takes minutes for fib(50), and a server that computes for
/// minutes sends no heartbeats and loses its connection.
///
/// # Errors
/// [`FibError::TooLarge`] from fib(94) on.
pub fn fib(n: u64) -> Result<u64, FibError> {
    let (mut current, mut next) = (0_u64, Some(1_u64));
    for _ in 0..n {
        let sum = next.ok_or(FibError::TooLarge(n))?;
        (current, next) = (sum, current.checked_add(sum));
    }
    Ok(current)
}

/// Reads a request's body.
pub(crate) fn parse(body: &[u8]) -> Result<u64, FibError> {
    let text = String::from_utf8_lossy(body);
    text.trim().parse().map_err(|_| FibError::NotANumber(crate::excerpt(body, 40)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_the_last_and_the_famous_ones() {
        for (n, expected) in [
            (0, 0),
            (1, 1),
            (2, 1),
            (10, 55),
            (30, 832_040),
            (92, 7_540_113_804_746_346_429),
            (93, 12_200_160_415_121_876_738),
        ] {
            assert_eq!(fib(n), Ok(expected), "fib({n})");
        }
    }

    #[test]
    fn too_large_is_an_error_at_once() {
        for n in [94, 1_000_000_000, u64::MAX] {
            assert_eq!(fib(n), Err(FibError::TooLarge(n)));
        }
    }

    #[test]
    fn a_body_is_a_decimal_number() {
        assert_eq!(parse(b"30"), Ok(30));
        assert_eq!(parse(b" 30\n"), Ok(30));
        for body in ["", "abc", "-1", "3.5", "99999999999999999999"] {
            assert_eq!(parse(body.as_bytes()), Err(FibError::NotANumber(body.to_owned())), "{body}");
        }
        assert_eq!(parse(b"3\n\x1b[2J0"), Err(FibError::NotANumber("3  [2J0".to_owned())));
        assert!(parse(&[0xff, 0xfe]).is_err());
        assert!(parse(&vec![b'9'; 1 << 20]).unwrap_err().to_string().len() < 100);
    }
}
