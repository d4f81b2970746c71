//! Prints without the panic of `println!`: when nobody reads any more (`cargo xtask demo | head -1`), the work,
//! and what cleans up after it, goes on, and the exit code still tells.

use std::io::Write;

/// `println!`, but a closed standard output is no error.
macro_rules! say {
    ($($text:tt)*) => { $crate::say::line(format_args!($($text)*)) };
}
pub(crate) use say;

/// What [`say!`] expands to.
pub(crate) fn line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(std::io::stdout(), "{text}");
}
