//! `cargo xtask demo` as a person types it, on a broker that is somebody else's.

use std::time::Duration;

use harness::{Program, Relay};

/// The demo builds its programs, which may be all of lapin.
const BUILD: Duration = Duration::from_secs(900);

fn xtask() -> Program {
    Program::new(env!("CARGO_BIN_EXE_xtask")).deadline(BUILD)
}

#[test]
fn the_demo_ends_with_its_answer_and_leaves_nothing_behind() {
    let vhost = broker::node().vhost().unwrap();
    let end = xtask().arg("demo").env("AMQP_URL", vhost.url()).run().expect_code(0);
    for line in [
        "  receiver |  [*] Waiting for messages. To exit press CTRL+C",
        "  sender   |  [x] Sent Hello World!",
        "  receiver | Received a message: Hello World!",
        "  rpc_client $ cargo run -p rpc --bin rpc_client 30",
        "  rpc_server |  [.] fib(30)",
        "  smoke $ cargo run -p smoke",
    ] {
        assert!(end.stdout.iter().any(|printed| printed == line), "{line:?} is missing: {end}");
    }
    assert!(end.stdout.iter().any(|line| line.starts_with("  smoke | passed: ")), "{end}");
    assert_eq!(end.stdout.last().unwrap(), " [.] Got 832040");
    assert!(vhost.queues().unwrap().is_empty());
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    let relay = Relay::start(("127.0.0.1", node.port())).unwrap();
    let url = vhost.url().replace(&format!(":{}/", node.port()), &format!(":{}/", relay.port()));
    let mut demo = xtask().arg("demo").env("AMQP_URL", url).start();
    demo.wait_for_line(|line| line.starts_with("programs: "));
    // From here each answer takes a second: the demo cannot be over before the signal comes.
    relay.delay(Duration::from_millis(500));
    demo.wait_for_line(|line| line.contains("--bin sender"));
    demo.interrupt();
    relay.delay(Duration::ZERO);
    let end = demo.wait(Duration::from_secs(60)).expect_code(130);
    assert!(end.stderr.iter().any(|line| line.starts_with("demo: interrupted")), "{end}");
    assert!(vhost.queues().unwrap().is_empty());
}

#[test]
fn a_broker_that_refuses_is_an_error_with_the_next_step_and_without_the_password() {
    let vhost = broker::node().vhost().unwrap();
    let url = vhost.url().replace("guest:guest", "guest:s3cret");
    let end = xtask().arg("demo").env("AMQP_URL", url).run().expect_code(1);
    let error = end.stderr.last().unwrap();
    assert!(error.contains("403") && error.contains("AMQP_URL"), "{end}");
    assert!(!end.to_string().contains("s3cret"), "{end}");
}

#[test]
fn wrong_usage_exits_with_2() {
    xtask().run().expect_code(2);
    xtask().arg("dance").run().expect_code(2);
}
