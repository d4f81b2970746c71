//! The program against real brokers: sound ones, and ones that were sabotaged.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod frame_relay;
mod leftovers;
mod own_broker {
    mod tls;
}
mod page;
mod permissions;
mod pipelines;
mod reports;
mod sabotage;
mod sound;
mod support;
