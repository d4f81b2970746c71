//! Remote procedure calls: a request goes to the server's queue, the reply comes back to the client's own.
//!
//! Two message properties make it work. `reply_to` names the queue for the reply; `correlation_id` says
//! which request it answers, so that one reply queue serves many requests at once.
//!
//! Requests and results are decimal numbers as UTF-8 text, as in the official tutorials. An error reply has
//! the property `type` set to [`ERROR_TYPE`] and words in its body.

mod client;
mod fib;
mod server;

pub use client::{CallError, ReplyTo, RpcClient};
pub use fib::{FibError, fib};
pub use server::{Server, answer, consume};

/// The queue that servers take requests from, the same in every language's tutorial.
pub const QUEUE: &str = "rpc_queue";

/// The `type` property of a reply that is an error.
pub const ERROR_TYPE: &str = "error";

/// The beginning of what a peer sent, on one line: it can be megabytes long, and of anybody's making.
pub(crate) fn excerpt(body: &[u8], characters: usize) -> String {
    let text = String::from_utf8_lossy(body);
    let beginning = text.trim().chars().take(characters);
    beginning.map(|character| if character.is_control() { ' ' } else { character }).collect()
}
