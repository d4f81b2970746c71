//! The program against real brokers: sound ones, and ones that were sabotaged.

mod frame_relay;
mod leftovers;
mod permissions;
mod reports;
mod sabotage;
mod sound;
mod support;
