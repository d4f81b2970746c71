//! The crate's programs against a real RabbitMQ.

#![allow(clippy::unwrap_used, reason = "a helper of a test is a test")]

mod dead_letters;
mod orders;
mod own_broker {
    mod restart;
}
mod payments;

use std::time::Duration;

use broker::Vhost;
use harness::{Program, Running};
use serde_json::{Value, json};
use shared::{Connection, ConnectionArgs, Session, Shutdown};

/// Time for a program to end when asked to.
const SOON: Duration = Duration::from_secs(30);

const WAITING: &str = " [*] Waiting for unpaid orders. To exit press CTRL+C";

fn delay_producer(url: &str) -> Program {
    Program::new(env!("CARGO_BIN_EXE_delay_producer")).args(["--url", url])
}

fn delay_consumer(url: &str) -> Program {
    Program::new(env!("CARGO_BIN_EXE_delay_consumer")).args(["--url", url])
}

fn dead_letters(url: &str) -> Program {
    Program::new(env!("CARGO_BIN_EXE_dead_letters")).args(["--url", url])
}

fn poison(url: &str) -> Program {
    Program::new(env!("CARGO_BIN_EXE_poison")).args(["--url", url])
}

/// Stops a program that runs until it is told to.
#[track_caller]
fn interrupt(mut program: Running) {
    program.interrupt();
    program.wait(SOON).expect_code(0);
}

/// Takes the three lines about this order; how many milliseconds it took to come, and its history.
#[track_caller]
fn expect_cancelled(consumer: &mut Running, order: &str, asked: u64) -> (u64, String) {
    let (came, asked_for, passed, history) = next_cancelled(consumer);
    assert_eq!((&*came, asked_for), (order, asked));
    (passed, history)
}

/// Takes the three lines about whichever order comes: its name, the delay that was asked for and the one that
/// passed (milliseconds), and its history.
#[track_caller]
fn next_cancelled(consumer: &mut Running) -> (String, u64, u64, String) {
    let [order, times, history] = [(); 3].map(|()| consumer.wait_for_line(|_| true));
    let parts = || {
        let order =
            order.strip_prefix(" [x] ")?.strip_suffix(" was not paid: cancelled, its stock put back")?;
        let times = times.strip_prefix("     asked for ")?.strip_suffix(" ms")?;
        let (asked, passed) = times.split_once(" ms, came after ")?;
        Some((order.to_owned(), asked.parse().ok()?, passed.parse().ok()?, history.clone()))
    };
    parts().unwrap_or_else(|| panic!("not about an order: {order:?}, {times:?}, {history:?}"))
}

/// Does something on a channel from within the test.
fn amqp<T>(url: &str, mut body: impl AsyncFnMut(&Session) -> shared::Result<T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let shutdown = Shutdown::new();
        let connection = Connection::open(&ConnectionArgs::for_url(url), "test", &shutdown).await.unwrap();
        let value = connection.session(async |session| body(&session).await).await.unwrap();
        shutdown.close_connections().await;
        value
    })
}

/// Publishes through the management API; the payload is base64.
fn publish(vhost: &Vhost, queue: &str, properties: &Value, payload: &str) {
    let message = json!({
        "routing_key": queue, "properties": properties, "payload": payload, "payload_encoding": "base64",
    });
    let path = format!("/api/exchanges/{}/amq.default/publish", vhost.name());
    assert_eq!(broker::node().post(&path, &message).unwrap()["routed"], true);
}

/// How a queue was declared. `Vhost::queue` counts its messages as well, which takes half a second.
fn declared(vhost: &Vhost, queue: &str) -> Value {
    broker::node().get(&format!("/api/queues/{}/{queue}", vhost.name())).unwrap()
}
