//! Connections that come back: what every program of this workspace stands on.
//!
//! lapin speaks AMQP; this crate decides what happens when the broker is not up yet, restarts, falls
//! silent, blocks, or says no:
//!
//! - [`run`] wraps a program's `main`: logs, signals, exit codes.
//! - [`parse`] reads a command line; [`ConnectionArgs`] are the options that every program has,
//!   [`Endpoint`] the broker that they name.
//! - [`Connection`] is made again whenever it is lost; its [`State`] can be watched.
//! - [`Connection::session`] runs an async function on a fresh channel, and again after each loss.
//! - [`Connection::spawn`] runs a task where the broker's answers arrive.
//! - [`Publisher`] sends messages and tells what became of each.
//! - [`Deadline`] gives each of lapin's calls a time limit and its error a name.
//! - [`Error`] explains itself: [`Error::hint`] is the next command to type.

mod args;
mod channels;
mod command_line;
mod configuration;
mod connection;
mod consumer;
mod deadline;
mod endpoint;
mod error;
mod explain;
mod idle;
mod io_thread;
mod link;
mod lock;
mod log;
mod message;
mod message_id;
mod program;
mod publisher;
mod queue_type;
mod reserved;
mod retry;
mod session;
mod sessions;
mod shell;
mod shutdown;
mod signals;
mod socket;
mod state;
mod stream;
mod tls;
mod topology;
mod window;
mod words;
mod writes;

pub use args::ConnectionArgs;
pub use command_line::{parse, print_usage};
pub use configuration::{Configuration, Scheme};
pub use connection::Connection;
pub use consumer::{Consumer, Tally, Verdict};
pub use deadline::{CALL_DEADLINE, Deadline};
pub use endpoint::{Endpoint, TlsFiles};
pub use error::{Error, Result};
pub use idle::runtime;
pub use message::{Message, Outcome, confirmed};
pub use message_id::message_id;
pub use program::{print_line, run, try_print_line};
pub use publisher::Publisher;
pub use queue_type::QueueType;
pub use retry::RetryPolicy;
pub use session::Session;
pub use sessions::Sessions;
pub use shell::shell_word;
pub use shutdown::{SHUTDOWN_DEADLINE, Shutdown};
pub use state::State;
pub use stream::Stream;
pub use topology::{Binding, Exchange, Overflow, Queue, Topology};
pub use words::text;
