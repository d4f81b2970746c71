//! `shared` against a real RabbitMQ: one program, so that one node serves all of it.

mod batches;
mod connecting;
mod consumers;
mod faults;
mod publisher;
mod sessions;
mod support;
mod tls;
mod topology;
