//! `shared` against a real RabbitMQ: one program, so that one node serves all of it.

mod connecting;
mod faults;
mod publisher;
mod sessions;
mod support;
