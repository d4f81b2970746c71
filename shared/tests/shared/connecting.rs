//! The first connection: what is waited for, what ends it at once, and what each line says.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::{Relay, silent_peer};
use shared::{Connection, ConnectionArgs, Error, RetryPolicy, Shutdown, State};

use crate::support::{LIMIT, args_through, url_at, within};

async fn refused(args: &ConnectionArgs) -> Error {
    match within(Connection::open(args, "test", &Shutdown::new())).await {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_comes_up_within_the_wait_is_found() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    relay.refuse(true);
    let shutdown = Shutdown::new();
    let args = args_through(&relay, &vhost).with_wait(LIMIT);
    let opening = Connection::open(&args, "early", &shutdown);
    let starting = async {
        // Long enough for some attempts to fail first; time is the subject here.
        tokio::time::sleep(Duration::from_millis(300)).await;
        relay.refuse(false);
    };
    let (opened, ()) = tokio::join!(opening, starting);
    opened?;
    Ok(())
}

#[tokio::test]
async fn nothing_listening_is_waited_for_and_then_explained() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let wait = Duration::from_millis(400);
    // The number of attempts is for later losses.
    let retry = RetryPolicy { attempts: 2, ..RetryPolicy::default() };
    let args = ConnectionArgs::for_url(format!("amqp://127.0.0.1:{free}")).with_wait(wait).with_retry(retry);
    let start = Instant::now();
    let error = refused(&args).await;
    assert!(start.elapsed() >= wait);
    let line = error.explain();
    for words in [&*format!("gave up on 127.0.0.1:{free}"), "connection refused", "cargo run -p broker"] {
        assert!(line.contains(words), "{words}: {line}");
    }
}

/// Each would be the same at the next attempt, so there is only one.
#[tokio::test]
async fn what_cannot_succeed_later_is_tried_once() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let url = vhost.url();
    for (url, words) in [
        (url.replace("guest:guest", "guest:wrong"), "rabbitmqctl change_password guest"),
        (url.replace("guest:guest", "nobody:guest"), "the user 'nobody' or its password is wrong"),
        (url.replace(vhost.name(), "nowhere"), "rabbitmqctl add_vhost nowhere"),
        (url.replace("amqp:", "amqps:"), "the port speaks no TLS"),
    ] {
        let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
        let error = refused(&ConnectionArgs::for_url(url_at(relay.port(), &url))).await;
        let line = error.explain();
        assert!(line.contains(words), "{words}: {line}");
        assert!(!line.contains("wrong@") && !line.contains(":wrong") && !line.contains('\n'), "{line}");
        assert_eq!(relay.accepted(), 1, "{words}");
    }
    Ok(())
}

#[tokio::test]
async fn a_user_without_the_vhost_is_told_the_permission_to_set() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let user = format!("user-of-{}", vhost.name());
    let body = serde_json::json!({"password": "secret", "tags": ""});
    broker::node().put(&format!("/api/users/{user}"), &body)?;
    let url = vhost.url().replace("guest:guest", &format!("{user}:secret"));
    let error = refused(&ConnectionArgs::for_url(url)).await;
    broker::node().delete(&format!("/api/users/{user}"))?;
    let line = error.explain();
    assert_eq!(error.code(), Some(530), "{line}");
    assert!(line.contains(&format!("rabbitmqctl set_permissions -p {} {user}", vhost.name())), "{line}");
    assert!(!line.contains("secret"), "{line}");
    Ok(())
}

#[tokio::test]
async fn a_peer_that_says_nothing_is_given_up_and_explained() {
    let peer = silent_peer();
    // The time to wait ends an attempt that would take longer.
    let args = ConnectionArgs::for_url(format!("amqp://127.0.0.1:{}", peer.port()))
        .with_wait(Duration::from_millis(700));
    let start = Instant::now();
    let line = refused(&args).await.explain();
    assert!(line.contains("no answer") && line.contains("is it the AMQP port"), "{line}");
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_source_documents_url_with_its_trailing_slash_means_the_default_vhost() -> Result<()> {
    let url = format!("amqp://guest:guest@localhost:{}/", broker::node().port());
    Connection::open(&ConnectionArgs::for_url(url), "slash", &Shutdown::new()).await?;
    Ok(())
}

/// A URL with both ports as its hosts.
fn two_hosts(first: u16, second: u16, url: &str) -> String {
    url_at(first, url).replace(&format!(":{first}/"), &format!(":{first},localhost:{second}/"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_hosts_the_next_is_tried_when_one_fails_or_is_lost() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let node = || Relay::start(("127.0.0.1", broker::node().port()));
    let (first, second) = (node()?, node()?);
    first.refuse(true);
    let args = ConnectionArgs::for_url(two_hosts(first.port(), second.port(), &vhost.url()));
    let connection = within(Connection::open(&args, "several", &Shutdown::new())).await?;
    assert_eq!((first.connections(), second.connections()), (0, 1));

    first.refuse(false);
    second.refuse(true);
    second.cut();
    let again = |state: &State| matches!(state, State::Up { generation: 2 });
    within(connection.state().wait_for(again)).await?;
    assert_eq!((first.connections(), second.connections()), (1, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_host_leaves_time_for_the_others() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let silent = silent_peer();
    let url = two_hosts(silent.port(), broker::node().port(), &vhost.url());
    let args = ConnectionArgs::for_url(url).with_wait(Duration::from_secs(10));
    let start = Instant::now();
    within(Connection::open(&args, "patient", &Shutdown::new())).await?;
    assert!(start.elapsed() >= Duration::from_secs(5), "half of the time is the first host's");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_host_refuses_another_may_grant_and_what_all_refuse_ends_it() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let node = || Relay::start(("127.0.0.1", broker::node().port()));
    let (first, second) = (node()?, node()?);
    let wrong = two_hosts(first.port(), second.port(), &vhost.url()).replace("guest:guest", "guest:wrong");
    let line = refused(&ConnectionArgs::for_url(wrong)).await.explain();
    assert!(line.contains("rabbitmqctl change_password guest") && !line.contains(":wrong"), "{line}");
    assert_eq!((first.accepted(), second.accepted()), (1, 1));

    // It answers, but not as a broker: no use to try that again, were it alone.
    let web = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = web.local_addr()?.port();
    std::thread::spawn(move || -> std::io::Result<()> {
        for client in web.incoming() {
            client?.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
        }
        Ok(())
    });
    let args = ConnectionArgs::for_url(two_hosts(port, second.port(), &vhost.url()));
    within(Connection::open(&args, "other", &Shutdown::new())).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shutdown_during_an_outage_ends_the_dialling() -> Result<()> {
    let vhost = broker::node().vhost()?;
    let relay = Relay::start(("127.0.0.1", broker::node().port()))?;
    let retry = RetryPolicy { interval: Duration::from_millis(50), ..RetryPolicy::default() };
    let shutdown = Shutdown::new();
    let args = args_through(&relay, &vhost).with_retry(retry);
    let connection = Connection::open(&args, "stopped", &shutdown).await?;
    relay.refuse(true);
    relay.cut();
    within(connection.state().wait_for(|state| matches!(state, State::Reconnecting { attempt: 3.., .. })))
        .await?;
    shutdown.request();
    within(connection.state().wait_for(|state| matches!(state, State::Closed { cause: None }))).await?;
    relay.refuse(false);
    let accepted = relay.accepted();
    tokio::time::sleep(6 * retry.interval).await;
    assert_eq!(relay.accepted(), accepted, "dialled after the shutdown");
    Ok(())
}
