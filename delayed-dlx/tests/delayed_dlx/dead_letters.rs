//! The ways to die and the rules around them.

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
 [x] of two times to live, the smaller one counts
     queue 200ms, message 30s: dead after 200ms
     queue 30s, message 200ms: dead after 200ms
 [x] a queue that expires takes its messages with it: they are no dead letters
     x-expires=200: the queue is gone, no message was dead-lettered
 [x] x-dead-letter-routing-key replaces the message's own key
     without it: published to the dead-letter exchange with the key "orders"
     with it: published with the key "unpaid"
 [x] a message that comes round a second time without a rejection is dropped
     expired in a queue that is its own dead-letter queue: dropped
     rejected there again and again: it comes back, with the counts [0, 1, 2]
 [x] without a dead-letter exchange the dead are gone, and nobody is told
     a queue without x-dead-letter-exchange: deleted
     a queue whose dead-letter exchange does not exist: deleted, and there is no error
 [x] x-overflow=reject-publish refuses new messages, and none has to die
     order 2 was refused (basic.nack), order 1 is still there"#;

#[test]
fn every_lesson_prints_the_same_each_time_and_leaves_nothing_behind() {
    let node = broker::node();
    let vhost = node.vhost().unwrap();
    // Two at once, one of them with a prefix.
    let mut programs =
        [[].as_slice(), &["--prefix", "ann-"]].map(|args| dead_letters(&vhost.url()).args(args).start());
    for program in &mut programs {
        assert_eq!(program.wait(Duration::from_secs(60)).expect_code(0).stdout.join("\n"), ALL);
    }
    assert_eq!(vhost.queues().unwrap(), [] as [Value; 0]);
    let exchanges = node.get(&format!("/api/exchanges/{}", vhost.name())).unwrap();
    let own = |exchange: &&Value| exchange["name"].as_str().unwrap().contains("dead_letters");
    assert_eq!(exchanges.as_array().unwrap().iter().find(own), None);
}

#[test]
fn single_lessons_can_be_chosen() {
    let vhost = broker::node().vhost().unwrap();
    let end = dead_letters(&vhost.url()).args(["queue-expiry", "maxlen"]).run().expect_code(0);
    let lines: Vec<_> = ALL.lines().collect();
    assert_eq!(end.stdout, [&lines[13..15], &lines[5..7]].concat());
    let end = dead_letters(&vhost.url()).args(["sloth"]).run().expect_code(2);
    assert!(end.stderr.join("\n").contains("invalid value 'sloth'"), "{:?}", end.stderr);
}
