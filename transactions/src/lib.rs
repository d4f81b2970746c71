//! Transactions and publisher confirms: two ways to know that the broker has a message.
//!
//! A publish is over, for the client, once it is written to the socket. Whether it reached the broker, a
//! queue, or a disk, it tells only where it is asked to, per channel, in one of two ways:
//!
//! - [`tx`]: in a *transaction*, publishes and acknowledgements take effect together at the commit. The
//!   reply to the commit says that the broker has taken responsibility for all of them.
//! - [`confirms`]: the broker *confirms* each message as soon as it has taken responsibility for it. The
//!   publisher decides how many unconfirmed messages it lets run ahead: a [`Strategy`](confirms::Strategy).
//!
//! A channel is in one mode or the other, for good; [`rules`] tries out what that means. [`guarantees`]
//! sends the same messages in five ways and takes the time. Nobody has to believe a number here:
//! [`arrivals`] consumes what really arrived, and the [`Ledger`] is held against it.

pub mod arrivals;
pub mod confirms;
pub mod guarantees;
mod ledger;
mod queue;
pub mod rules;
pub mod tx;

pub use ledger::{Arrivals, Fate, Ledger, Mismatch};
pub use queue::{LAST_STEPS, TrialQueue, clean_up};
