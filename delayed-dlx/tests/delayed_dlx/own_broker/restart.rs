//! What a restart of the broker does to orders that wait and to those who wait for them.

use broker::Node;

use crate::*;

#[test]
fn orders_outlive_the_broker_and_consumers_come_back() {
    let node = Node::start().unwrap();
    let url = &node.url();
    let mut consumer = delay_consumer(url).start();
    consumer.expect_line(WAITING);
    let mut worker = poison(url).args(["--queue-type", "classic", "--retry-after", "2s", "poison"]).start();
    worker.expect_line(" [x] Sent poison");
    worker.expect_line(" [!] poison: cannot be paid; attempt 1 of 3, the next in 2s");
    // The time of one is up while the broker is down; the other's mostly afterwards.
    delay_producer(url).args(["--delay", "6s,12s"]).run().expect_code(0);

    node.write_out().unwrap();
    node.kill().unwrap();
    node.restart().unwrap();
    let mut orders = [(); 2].map(|()| next_cancelled(&mut consumer));
    orders.sort();
    for ((order, asked, passed, _), expected) in
        orders.into_iter().zip([("order 1", 6000), ("order 2", 12000)])
    {
        assert_eq!((&*order, asked), expected);
        assert!(passed >= asked, "{order}: {passed} ms");
    }
    // Nothing confirms an acknowledgement: the broker may have lost that of the first attempt, and the
    // payment is then there once more.
    worker.wait_for_line(|line| line == " [!] poison: cannot be paid; attempt 2 of 3, the next in 2s");
    worker.wait_for_line(|line| line.ends_with("; attempt 3 of 3, rejected to payments.dead"));

    delay_producer(url).args(["--delay", "100ms"]).run().expect_code(0);
    let (passed, _) = expect_cancelled(&mut consumer, "order 1", 100);
    assert!(passed >= 100, "{passed} ms");
    interrupt(consumer);
    interrupt(worker);
}
