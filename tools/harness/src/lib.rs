//! Runs programs and breaks networks, for demos and tests.
//!
//! - [`Program`] starts a real process and waits, always with a deadline, for the lines it prints.
//! - [`Relay`] stands between a client and a broker and cuts, refuses, delays or silences what passes.
//! - [`silent_peer`] accepts connections and never says a word.
//!
//! Methods panic with everything the program printed so far, because a test has nothing better to do;
//! the `try_` ones return the same text as a [`Failure`].

mod failure;
mod program;
mod relay;
mod running;
mod silent_peer;
mod transcript;
mod watchdog;

pub use failure::Failure;
pub use program::Program;
pub use relay::{Direction, Relay};
pub use running::{End, Running};
pub use silent_peer::{SilentPeer, silent_peer};
pub use transcript::Stream;
