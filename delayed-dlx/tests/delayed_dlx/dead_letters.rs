//! The ways to die and the rules around them.

use std::time::Instant;

use super::*;

const ALL: &str = r#" [x] rejected: a consumer refused the message, with requeue set to false
     queue="orders" reason=rejected count=1 exchange="shop" routing-keys=["orders"]
 [x] expired: the message's time to live was up
     queue="orders" reason=expired count=1 exchange="shop" routing-keys=["orders"] original-expiration="100"
     the property expiration is gone: it would expire again in the next queue
 [x] maxlen: the queue was full, so its oldest message had to go
     queue="orders" reason=maxlen count=1 exchange="shop" routing-keys=["orders"]
 [x] delivery_limit: the message came back to a quorum queue too often
     queue="orders" reason=delivery_limit count=1 exchange="shop" routing-keys=["orders"]
     with x-delivery-limit=2 it was delivered 3 times
     NACK
     DEFAULT
 [x] of two times to live, the smaller one counts
     queue 200ms, message 30s: dead after 200ms
     queue 30s, message 200ms: dead after 200ms
 [x] a queue that expires takes its messages with it: they are no dead letters
     x-expires=1000: the queue is gone, no message was dead-lettered
 [x] x-dead-letter-routing-key replaces the message's own key
     without it: published to the dead-letter exchange with the key "orders"
     with it: published with the key "unpaid"
 [x] a message that comes round a second time without a rejection is dropped
     expired in a queue that is its own dead-letter queue: dropped
     rejected there again and again: it comes back, with the counts [0, 1, 2]
 [x] the history of a dead letter belongs to the broker, not to whoever publishes it again
     REPUBLISHED
 [x] without a dead-letter exchange the dead are gone, and nobody is told
     a queue without x-dead-letter-exchange: deleted
     a queue whose dead-letter exchange does not exist: deleted, and there is no error
 [x] x-overflow=reject-publish refuses new messages, and none has to die
     order 2 was refused (basic.nack), order 1 is still there"#;

/// What differs between versions, before this one and from it on.
const DIFFERENCES: [(&str, (u32, u32), [&str; 2]); 3] = [
    (
        "NACK",
        (4, 3),
        [
            "put back with basic.nack instead of basic.reject it was delivered 3 times",
            "put back with basic.nack instead of basic.reject it came 30 times and goes on: since RabbitMQ 4.3 that \
             does not count",
        ],
    ),
    (
        "DEFAULT",
        (4, 0),
        [
            "without x-delivery-limit it came 30 times and goes on: before RabbitMQ 4.0 there is no default",
            "without x-delivery-limit it was delivered 21 times: since RabbitMQ 4.0 there is a default",
        ],
    ),
    (
        "REPUBLISHED",
        (4, 0),
        [
            "published again with its headers, it died with the count 2: before RabbitMQ 4.0 the broker goes on \
             counting",
            "published again with its headers, it died with the count 1: since RabbitMQ 4.0 the broker begins anew",
        ],
    ),
];

/// What is printed on the broker of the tests.
fn all() -> String {
    DIFFERENCES.iter().fold(ALL.to_owned(), |text, (name, (major, minor), lines)| {
        let line = lines[usize::from(broker::node().is_from(*major, *minor).unwrap())];
        text.replace(name, line)
    })
}

#[test]
fn every_lesson_prints_the_same_each_time_and_leaves_nothing_behind() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    // Two at once, one of them with a prefix.
    let mut programs =
        [[].as_slice(), &["--prefix", "ann-"]].map(|args| dead_letters(&vhost.url()).args(args).start());
    for program in &mut programs {
        assert_eq!(program.wait(Duration::from_secs(60)).expect_code(0).stdout.join("\n"), all());
    }
    // RabbitMQ 4.3 deletes the queues of a connection some time after the connection has gone.
    let deadline = Instant::now() + SOON;
    while !vhost.queues().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "{:?}", vhost.queues());
    }
    let exchanges = node.get(&format!("/api/exchanges/{}", vhost.name())).unwrap();
    let own = |exchange: &&Value| exchange["name"].as_str().unwrap().contains("dead_letters");
    assert_eq!(exchanges.as_array().unwrap().iter().find(own), None);
}

#[test]
fn single_lessons_can_be_chosen() {
    let vhost = broker::node().vhost().unwrap();
    let end = dead_letters(&vhost.url()).args(["queue-expiry", "maxlen"]).run().expect_code(0);
    let lines: Vec<_> = ALL.lines().collect();
    assert_eq!(end.stdout, [&lines[15..17], &lines[5..7]].concat());
    let end = dead_letters(&vhost.url()).args(["sloth"]).run().expect_code(2);
    assert!(end.stderr.join("\n").contains("invalid value 'sloth'"), "{:?}", end.stderr);
}
