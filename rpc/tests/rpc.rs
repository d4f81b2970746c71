//! Server and client against a real broker: results, errors, many calls at once, and trouble.

use std::time::Duration;

use anyhow::Result;
use broker::{Node, Vhost};
use harness::{Program, Relay, Running, silent_peer};
use lapin::options::{BasicGetOptions, BasicPublishOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, message::BasicGetMessage};
use rpc::{CallError, ReplyTo, RpcClient};
use serde_json::{Value, json};
use shared::{Connection, ConnectionArgs, Deadline, Session, Shutdown};
use tokio::task::{JoinSet, block_in_place};
use tokio::time::timeout;

const AWAITING: &str = " [*] Awaiting RPC requests";
const LIMIT: Duration = Duration::from_secs(30);

fn server(url: &str) -> Program {
    Program::new(env!("CARGO_BIN_EXE_rpc_server")).args(["--url", url])
}

fn client(url: &str) -> Program {
    Program::new(env!("CARGO_BIN_EXE_rpc_client")).args(["--url", url])
}

fn awaiting_server(program: Program) -> Running {
    let mut server = program.start();
    server.expect_line(AWAITING);
    server
}

async fn connect(url: String) -> shared::Result<(Connection, Shutdown)> {
    let shutdown = Shutdown::new();
    Ok((Connection::open(&ConnectionArgs::for_url(url), "test", &shutdown).await?, shutdown))
}

#[test]
fn the_client_prints_the_servers_result() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut server = awaiting_server(server(&vhost.url()));
    for (args, n, result) in [
        (&["30"][..], 30, "832040"),
        (&[], 30, "832040"),
        (&[""], 30, "832040"),
        (&["0"], 0, "0"),
        (&["93"], 93, "12200160415121876738"),
        (&["--direct-reply-to", "10"], 10, "55"),
    ] {
        let end = client(&vhost.url()).args(args).run().expect_code(0);
        assert_eq!(end.stdout, [format!(" [x] Requesting fib({n})"), format!(" [.] Got {result}")]);
        assert!(end.stderr.is_empty(), "{end:#?}");
        server.expect_line(&format!(" [.] fib({n})"));
    }
    server.interrupt();
    let end = server.wait(LIMIT).expect_code(0);
    assert_eq!(end.stdout.len(), 7, "each request is served once: {end:#?}");
    assert!(end.stderr.is_empty(), "{end:#?}");
    Ok(())
}

#[test]
fn wrong_arguments_are_refused_before_anything_connects() {
    let peer = silent_peer();
    let url = format!("amqp://127.0.0.1:{}", peer.port());
    for args in [&["abc"][..], &["-1"], &["1", "2"], &["3.5"], &["99999999999999999999"], &["--timeout", "5"]]
    {
        let end = client(&url).args(args).run().expect_code(2);
        assert!(end.stdout.is_empty() && end.stderr[0].starts_with("error: "), "{end:#?}");
    }
    let end = client("http://guest:secret@x").run().expect_code(2);
    assert!(end.stdout.is_empty() && end.stderr[0].contains("starts with 'http:'"), "{end:#?}");
    server(&url).args(["--prefetch", "0"]).run().expect_code(2);
    server(&url).args(["--prefetch", "65536"]).run().expect_code(2);
}

#[test]
fn without_a_server_the_client_says_so_at_once_and_later_in_time() -> Result<()> {
    let vhost = broker::node().vhost()?;
    // No queue: the request comes back long before the time limit.
    let end = client(&vhost.url()).args(["--timeout", "1h"]).run().expect_code(1);
    assert_eq!(end.stdout, [" [x] Requesting fib(30)"]);
    assert!(end.stderr[0].contains("no RPC server: the queue 'rpc_queue' does not exist"), "{end:#?}");

    // The queue of a server that has gone: the request waits there, the client not for ever.
    let mut server = awaiting_server(server(&vhost.url()));
    server.interrupt();
    server.wait(LIMIT).expect_code(0);
    let end = client(&vhost.url()).args(["--timeout", "300ms"]).run().expect_code(1);
    assert!(
        end.stderr[0].contains("no reply within 300ms: is a server of the queue 'rpc_queue' running?"),
        "{end:#?}"
    );
    Ok(())
}

#[test]
fn a_result_that_does_not_fit_is_the_servers_error_and_the_server_goes_on() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut server = awaiting_server(server(&vhost.url()));
    for n in ["94", "1000000000", "18446744073709551615"] {
        let end = client(&vhost.url()).arg(n).run().expect_code(1);
        assert_eq!(end.stdout, [format!(" [x] Requesting fib({n})")]);
        assert!(
            end.stderr[0].contains(&format!("the server answered: fib({n}) does not fit in 64 bits")),
            "{end:#?}"
        );
        server.expect_line(&format!(" [.] fib({n})"));
    }
    let end = client(&vhost.url()).run().expect_code(0);
    assert_eq!(end.stdout[1], " [.] Got 832040");
    Ok(())
}

/// Publishes a request as a program in another language would, through the management API.
fn request(vhost: &Vhost<'_>, body: &[u8], properties: &Value) -> Result<()> {
    let payload = body.iter().map(|byte| char::from(*byte)).collect::<String>();
    let message = json!({
        "properties": properties, "routing_key": "rpc_queue", "payload": payload, "payload_encoding": "string",
    });
    let routed =
        broker::node().post(&format!("/api/exchanges/{}/amq.default/publish", vhost.name()), &message)?;
    anyhow::ensure!(routed["routed"] == true, "not routed: {routed}");
    Ok(())
}

async fn next_reply(session: &Session, queue: &str) -> shared::Result<BasicGetMessage> {
    let ask = async {
        loop {
            let got = session.channel.basic_get(queue.into(), BasicGetOptions { no_ack: true });
            if let Some(message) = got.deadline("get a reply").await? {
                return Ok(message);
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LIMIT, ask).await.unwrap_or_else(|_| panic!("no reply in {queue} within {LIMIT:?}"))
}

/// The wire format that the official tutorials' programs speak.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_are_plain_decimal_text_and_errors_are_marked_by_their_type() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut server = awaiting_server(server(&vhost.url()));
    let (connection, _shutdown) = connect(vhost.url()).await?;
    let replies = connection.session(async |session| {
        let options = QueueDeclareOptions::exclusive();
        let declared = session.channel.queue_declare("replies".into(), options, FieldTable::default());
        declared.deadline("declare a queue").await?;
        let mut replies = Vec::new();
        for (id, body) in
            [("a", &b"30"[..]), ("b", b"abc"), ("c", b""), ("d", b"-1"), ("e", b"94"), ("f", b" 7\n")]
        {
            let properties = json!({"reply_to": "replies", "correlation_id": id});
            block_in_place(|| request(&vhost, body, &properties)).map_err(shared::Error::own)?;
            let reply = next_reply(&session, "replies").await?.delivery;
            let property =
                |value: &Option<lapin::types::ShortString>| value.as_ref().map(ToString::to_string);
            assert_eq!(property(reply.properties.correlation_id()).as_deref(), Some(id));
            assert_eq!(property(reply.properties.content_type()).as_deref(), Some("text/plain"));
            replies
                .push((property(reply.properties.kind()), String::from_utf8_lossy(&reply.data).into_owned()));
        }
        Ok(replies)
    });
    let error = |text: &str| (Some("error".to_owned()), text.to_owned());
    assert_eq!(
        replies.await?,
        [
            (None, "832040".to_owned()),
            error("'abc' is not a whole number from 0 to 93"),
            error("'' is not a whole number from 0 to 93"),
            error("'-1' is not a whole number from 0 to 93"),
            error("fib(94) does not fit in 64 bits: 93 is the last that does"),
            (None, "13".to_owned()),
        ]
    );
    for n in ["30", "94", "7"] {
        server.expect_line(&format!(" [.] fib({n})"));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_nobody_can_be_answered_for_do_not_stop_the_server() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let mut server = awaiting_server(server(&vhost.url()).env("RUST_LOG", "info"));
    block_in_place(|| request(&vhost, b"5", &json!({})))?;
    server.wait_for_error_line(|line| line.contains("without reply_to"));
    block_in_place(|| request(&vhost, b"6", &json!({"reply_to": "gone", "correlation_id": "x"})))?;
    server.wait_for_error_line(|line| line.contains("the client of gone is gone"));
    assert_eq!(client(&vhost.url()).run().expect_code(0).stdout[1], " [.] Got 832040");
    server.interrupt();
    let end = server.wait(LIMIT).expect_code(0);
    assert_eq!(end.stdout, [AWAITING, " [.] fib(6)", " [.] fib(30)"], "nothing came back");
    let (connection, _shutdown) = connect(vhost.url()).await?;
    let left = connection.session(async |session| {
        let passive = QueueDeclareOptions::durable().passive();
        let queue = session.channel.queue_declare("rpc_queue".into(), passive, FieldTable::default());
        Ok(queue.deadline("look at a queue").await?.message_count())
    });
    assert_eq!(left.await?, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_at_once_on_one_client_get_their_own_answers() -> Result<()> {
    for (reply_to, prefetch) in [(ReplyTo::Queue, "1"), (ReplyTo::Direct, "10")] {
        let vhost = broker::node().vhost()?;
        let _first = awaiting_server(server(&vhost.url()).args(["--prefetch", prefetch]));
        let _second = awaiting_server(server(&vhost.url()).args(["--prefetch", prefetch]));
        let (connection, _shutdown) = connect(vhost.url()).await?;
        let client = std::sync::Arc::new(RpcClient::new(&connection, rpc::QUEUE, reply_to));
        let mut calls = JoinSet::new();
        for n in (0..100).chain(0..100) {
            let client = client.clone();
            calls.spawn(async move { (n, client.call(n, LIMIT).await) });
        }
        let answers = calls.join_all().await;
        assert_eq!(answers.len(), 200);
        for (n, answer) in answers {
            match (rpc::fib(n), answer) {
                (Ok(expected), Ok(result)) => assert_eq!(result, expected, "fib({n})"),
                (Err(expected), Err(CallError::Server(text))) => assert_eq!(text, expected.to_string()),
                (expected, answer) => panic!("fib({n}): {answer:?} instead of {expected:?}"),
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_without_a_server_are_each_told_so() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let (connection, _shutdown) = connect(vhost.url()).await?;
    let client = std::sync::Arc::new(RpcClient::new(&connection, "no such queue", ReplyTo::Queue));
    let mut calls = JoinSet::new();
    for n in 0..50 {
        let client = client.clone();
        calls.spawn(async move { client.call(n, LIMIT).await });
    }
    for answer in calls.join_all().await {
        assert!(matches!(answer, Err(CallError::NoServer { .. })), "{answer:?}");
    }
    Ok(())
}

/// A scripted server: it sends strangers' and duplicate replies before and after the right one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_with_unknown_ids_and_second_replies_are_ignored() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let (connection, _shutdown) = connect(vhost.url()).await?;
    let scripted = connection.session(async |session| {
        let channel = &session.channel;
        let options = QueueDeclareOptions::exclusive();
        channel
            .queue_declare(rpc::QUEUE.into(), options, FieldTable::default())
            .deadline("declare a queue")
            .await?;
        for _ in 0..2 {
            let request = next_reply(&session, rpc::QUEUE).await?.delivery;
            let id = request.properties.correlation_id().clone().unwrap_or_default();
            let reply_to = request.properties.reply_to().clone().unwrap_or_default();
            for (id, body) in [("stranger".into(), "1"), (id.clone(), "42"), (id, "43")] {
                let properties = BasicProperties::default().with_correlation_id(id);
                let (options, body) = (BasicPublishOptions::default(), body.as_bytes());
                let published = channel.basic_publish("".into(), reply_to.clone(), options, body, properties);
                published.deadline("publish a message").await?;
            }
        }
        Ok(())
    });
    let (other, _shutdown) = connect(vhost.url()).await?;
    let client = RpcClient::new(&other, rpc::QUEUE, ReplyTo::Queue);
    let calls = async {
        // Until the scripted server has declared its queue, there is no server.
        loop {
            match client.call(1, LIMIT).await {
                Err(CallError::NoServer { .. }) => tokio::task::yield_now().await,
                first => break (first, client.call(2, LIMIT).await),
            }
        }
    };
    let calls = async { timeout(LIMIT, calls).await.expect("the scripted server declares its queue") };
    let (served, (first, second)) = tokio::join!(scripted, calls);
    served?;
    assert_eq!((first?, second?), (42, 42));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_in_flight_survives_a_lost_connection() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let _server = awaiting_server(server(&vhost.url()));
    let (connection, _shutdown) = connect(vhost.url_through(relay.port())).await?;
    let client = RpcClient::new(&connection, rpc::QUEUE, ReplyTo::Queue);
    for cut in 0..20 {
        let call = client.call(cut, LIMIT);
        let trouble = async { relay.cut() };
        let (answer, ()) = tokio::join!(call, trouble);
        assert_eq!(answer?, rpc::fib(cut)?);
    }
    Ok(())
}

#[test]
fn twenty_cuts_in_a_row_leave_one_consumer_and_the_server_serving() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let url = vhost.url_through(relay.port());
    let mut server = awaiting_server(server(&url).env("RUST_LOG", "debug"));
    for generation in 2..=21 {
        relay.cut();
        // The connection for the replies may be cut while it is still being made: no harm in that either.
        let line = format!("rpc_server requests: connected (generation {generation})");
        server.wait_for_error_line(|error| error.contains(&line));
    }
    assert_eq!(client(&vhost.url()).run().expect_code(0).stdout[1], " [.] Got 832040");
    vhost.wait_for_consumers(1)?;
    relay.wait_for_connections(2, LIMIT);
    server.terminate();
    server.wait(LIMIT).expect_code(0);
    Ok(())
}

/// How many messages wait in a queue, asked on a connection of its own.
async fn depth(connection: &Connection, queue: &str) -> shared::Result<u32> {
    let ask = connection.session(async |session| {
        let passive = QueueDeclareOptions::durable().passive();
        let asked = session.channel.queue_declare(queue.into(), passive, FieldTable::default());
        Ok(asked.deadline("look at a queue").await?.message_count())
    });
    ask.await
}

/// Waits until at least so many messages are there.
async fn wait_for_depth(connection: &Connection, queue: &str, messages: u32) -> shared::Result<()> {
    let grow = async {
        while depth(connection, queue).await? < messages {}
        Ok(())
    };
    timeout(LIMIT, grow)
        .await
        .unwrap_or_else(|_| panic!("{queue} has no {messages} messages after {LIMIT:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_nobody_waits_for_are_forgotten_and_the_others_are_capped() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let (direct, _shutdown) = connect(vhost.url()).await?;
    let declare = direct.session(async |session| {
        let declared =
            session.channel.queue_declare("q".into(), QueueDeclareOptions::durable(), FieldTable::default());
        declared.deadline("declare a queue").await
    });
    declare.await?;
    let (connection, _shutdown) = connect(vhost.url_through(relay.port())).await?;
    let client = std::sync::Arc::new(RpcClient::new(&connection, "q", ReplyTo::Queue));

    let mut calls = JoinSet::new();
    for n in 0..5 {
        let client = client.clone();
        calls.spawn(async move { client.call(n, LIMIT).await.is_ok() });
    }
    wait_for_depth(&direct, "q", 5).await?;
    calls.shutdown().await;
    relay.cut();
    // The client is back when it sends a new call; by then it would have sent the old ones again.
    tokio::select! {
        answer = client.call(5, LIMIT) => panic!("answered by nobody: {answer:?}"),
        sent = wait_for_depth(&direct, "q", 6) => sent?,
    }
    assert_eq!(depth(&direct, "q").await?, 6);

    let mut calls = JoinSet::new();
    for n in 0..2000 {
        let client = client.clone();
        calls.spawn(async move { client.call(n, LIMIT).await.is_ok() });
    }
    wait_for_depth(&direct, "q", 6 + 1024).await?;
    // Time enough for the others, were they let in.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(depth(&direct, "q").await?, 6 + 1024);
    calls.shutdown().await;

    drop(client);
    let start = std::time::Instant::now();
    while block_in_place(|| vhost.queues())?.len() > 1 {
        assert!(start.elapsed() < LIMIT, "the reply queue outlives its client");
    }
    Ok(())
}

#[tokio::test]
async fn a_call_on_a_closed_connection_fails_at_once() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let (connection, shutdown) = connect(vhost.url()).await?;
    let client = RpcClient::new(&connection, "q", ReplyTo::Queue);
    shutdown.request();
    shutdown.close_connections().await;
    for _ in 0..2 {
        let answer = client.call(1, Duration::from_secs(3600)).await;
        assert!(matches!(answer, Err(CallError::Connection(_))), "{answer:?}");
    }
    Ok(())
}

/// Without a connection for replies a request must not be taken for done.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_answered_now_stays_in_the_queue() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let (requests, _shutdown) = connect(vhost.url()).await?;
    let (replies, closed) = connect(vhost.url()).await?;
    let replies = shared::Publisher::new(&replies, 1);
    closed.close_connections().await;
    let queue_type = shared::QueueType::Classic;
    let server = rpc::Server { queue: rpc::QUEUE.to_owned(), queue_type, prefetch: 1 };
    let served = requests.session(async |session| {
        let mut consumer = rpc::consume(&session.channel, &server).await?;
        let properties = json!({"reply_to": "somewhere", "correlation_id": "x"});
        block_in_place(|| request(&vhost, b"5", &properties)).map_err(shared::Error::own)?;
        let Some(delivery) = session.next(&mut consumer).await? else { return Ok(()) };
        rpc::answer(delivery, &session.channel, &replies, drop).await
    });
    let error = served.await.unwrap_err();
    assert!(matches!(error, shared::Error::Stopped | shared::Error::Closed(_)), "{error:?}");
    wait_for_depth(&requests, rpc::QUEUE, 1).await?;
    Ok(())
}

#[test]
fn a_full_reply_queue_does_not_stop_the_server() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let full = json!({"durable": true, "arguments": {"x-max-length": 0, "x-overflow": "reject-publish"}});
    broker::node().put(&format!("/api/queues/{}/full", vhost.name()), &full)?;
    let mut server = awaiting_server(server(&vhost.url()));
    for n in 0..10 {
        request(&vhost, b"5", &json!({"reply_to": "full", "correlation_id": n.to_string()}))?;
        server.expect_line(" [.] fib(5)");
    }
    assert_eq!(client(&vhost.url()).run().expect_code(0).stdout[1], " [.] Got 832040");
    server.expect_line(" [.] fib(30)");
    Ok(())
}

mod own_broker {
    use super::*;

    /// On a node of its own: an alarm, a stopped broker, and a killed one.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn server_and_client_live_through_a_broker_in_trouble() -> Result<()> {
        let node = Node::start()?;
        let url = format!("{}?heartbeat=2&connection_timeout=1000", node.url());
        let mut server = awaiting_server(server(&url).args(["--queue-type", "classic"]));
        assert_eq!(client(&url).run().expect_code(0).stdout[1], " [.] Got 832040");

        node.memory_alarm(true)?;
        let end = client(&url).args(["--timeout", "2s"]).run().expect_code(1);
        let last = end.stderr.last().expect("an error line");
        assert!(last.contains("no reply within 2s: the broker blocks publishing: low on memory"), "{last}");
        // A client that lives longer than any deadline of a single step works again after the alarm.
        let (connection, _shutdown) = connect(url.clone()).await?;
        let patient = RpcClient::new(&connection, rpc::QUEUE, ReplyTo::Queue);
        let answer = patient.call(1, shared::CALL_DEADLINE + Duration::from_secs(2)).await;
        assert!(matches!(answer, Err(CallError::Timeout { .. })), "{answer:?}");
        node.memory_alarm(false)?;
        assert_eq!(patient.call(10, LIMIT).await?, 55);
        drop((patient, connection));

        node.pause()?;
        server.wait_for_error_line(|line| line.contains("connection lost"));
        let mut stuck = client(&url).start();
        stuck.wait_for_error_line(|line| line.contains("no answer"));
        stuck.interrupt();
        stuck.wait(LIMIT).expect_code(0);
        node.resume()?;
        server.wait_for_error_line(|line| line.contains("rpc_server requests: connected (generation 2)"));
        assert_eq!(client(&url).run().expect_code(0).stdout[1], " [.] Got 832040");

        node.kill()?;
        server.wait_for_error_line(|line| {
            line.contains("rpc_server requests: Failed to connect") || line.contains("lost")
        });
        node.restart()?;
        server.wait_for_error_line(|line| line.contains("rpc_server requests: connected (generation 3)"));
        assert_eq!(client(&url).run().expect_code(0).stdout[1], " [.] Got 832040");

        node.pause()?;
        server.interrupt();
        server.wait(LIMIT).expect_code(0);
        node.resume()?;
        Ok(())
    }
}
