//! `shared` against a real RabbitMQ: one program, so that one node serves all of it.

mod batches;
mod connecting;
mod consumers;
mod own_broker {
    mod faults;
    mod tls;
}
mod publisher;
mod sessions;
mod support;
mod tasks;
mod topology;
mod waiting;
