//! From the first packet to the first message: what everything else needs.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lapin::options::BasicGetOptions;
use shared::{Deadline, Endpoint, Error, QueueType, Result};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::check::{Check, Finding, Group, Stop, fault, pass};
use crate::judge::rounded;
use crate::messages::{publish, same};
use crate::start_frame::{Tls, ask, with_any_host};
use crate::trial::Trial;

/// A certificate with fewer days left than this is to be renewed now.
const DAYS_LEFT: i64 = 14;

/// The pause between two looks at a broker that is still starting.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "tcp",
        about: "the host name resolves and the port accepts connections",
        group: Group::Connection,
        needs: &[],
        rests: Duration::ZERO,
        run: |trial| Box::pin(tcp(trial)),
    },
    Check {
        name: "tls",
        about: "the TLS handshake, and how long the certificate is valid",
        group: Group::Connection,
        needs: &["tcp"],
        rests: Duration::ZERO,
        run: |trial| Box::pin(tls(trial)),
    },
    Check {
        name: "broker",
        about: "an AMQP 0-9-1 broker answers; product and version",
        group: Group::Connection,
        needs: &["tcp"],
        rests: Duration::ZERO,
        run: |trial| Box::pin(broker(trial)),
    },
    Check {
        name: "login",
        about: "user and password, or the certificate, are accepted",
        group: Group::Connection,
        needs: &["broker"],
        rests: Duration::ZERO,
        run: |trial| Box::pin(login(trial)),
    },
    Check {
        name: "vhost",
        about: "the vhost is there and the user may use it",
        group: Group::Connection,
        needs: &["login"],
        rests: Duration::ZERO,
        run: |trial| Box::pin(vhost(trial)),
    },
    Check {
        name: "queue",
        about: "a queue is declared and deleted",
        group: Group::Basics,
        needs: &["vhost"],
        rests: Duration::ZERO,
        run: |trial| Box::pin(queue(trial)),
    },
    Check {
        name: "publish",
        about: "a message is confirmed, and the same one is got back",
        group: Group::Basics,
        needs: &["queue"],
        rests: Duration::ZERO,
        run: |trial| Box::pin(publish_and_get(trial)),
    },
];

/// Tries with all hosts until it works or a starting broker has used up its time. What cannot pass is not tried again.
async fn until_up<T>(trial: &Trial, attempt: impl AsyncFn(&Endpoint) -> io::Result<T>) -> Result<T> {
    let run = trial.run();
    loop {
        let error = match with_any_host(&run.endpoint, run.connect_limit(), &attempt).await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let passing = !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Unsupported);
        if !passing || Instant::now() + PAUSE >= run.patience {
            return Err(match error.kind() {
                io::ErrorKind::Unsupported => fault(
                    "an AMQP 0-9-1 broker",
                    error.to_string(),
                    "give the AMQP port in --url: 5672, with TLS 5671",
                ),
                _ => Error::Connect { endpoint: Arc::new(run.endpoint.clone()), cause: error.into() },
            });
        }
        sleep(PAUSE).await;
    }
}

async fn tcp(trial: Trial) -> Result<Finding> {
    trial.step("connect");
    let endpoint = &trial.run().endpoint;
    let connect = async |host: &Endpoint| TcpStream::connect((host.host(), host.port())).await;
    let stream = until_up(&trial, connect).await?;
    let peer = stream.peer_addr().map(|peer| peer.to_string());
    pass(peer.unwrap_or_else(|_| endpoint.address()))
}

async fn tls(trial: Trial) -> Result<Finding> {
    trial.step("finish the TLS handshake");
    let endpoint = &trial.run().endpoint;
    if !endpoint.is_tls() {
        return Err(Stop::Skip("the URL is amqp://, without TLS".to_owned()).into());
    }
    let stream = until_up(&trial, async |host| host.connect().await).await?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let tls = Tls::of(&stream, i64::try_from(now).unwrap_or(i64::MAX)).map_err(Error::own)?;
    let Some(tls) = tls else {
        return Err(fault("TLS", "a plain connection", "report this as a fault of this program"));
    };
    let note = format!("{}; the certificate of {} has {} days left", tls.version, tls.subject, tls.days_left);
    if tls.days_left < DAYS_LEFT {
        return Ok(Finding::Warn(format!("{note}: renew it")));
    }
    pass(note)
}

async fn broker(trial: Trial) -> Result<Finding> {
    trial.step("get the broker's greeting");
    let run = trial.run();
    let broker = until_up(&trial, async |host| ask(host.connect().await?).await).await?;
    let mut note = format!("{}; log in with {}", broker.title(), broker.mechanisms);
    if let Some(cluster) = &broker.cluster {
        note = format!("{note}; cluster {cluster}");
    }
    *run.broker.borrow_mut() = Some(broker);
    pass(note)
}

async fn login(trial: Trial) -> Result<Finding> {
    let run = trial.run();
    let started = Instant::now();
    let wait = run.wait_left().max(run.connect_limit());
    match trial.connect_with(&run.args_for(wait)).await {
        Ok(_) => {}
        // Said after the login.
        Err(error) if error.code() == Some(530) => {}
        Err(error) => return Err(error),
    }
    pass(format!("as {}, connected in {}", run.endpoint.user(), rounded(started.elapsed())))
}

async fn vhost(trial: Trial) -> Result<Finding> {
    let run = trial.run();
    trial.connect_with(&run.args_for(run.wait_left().max(run.connect_limit()))).await?;
    pass(run.endpoint.vhost())
}

async fn queue(trial: Trial) -> Result<Finding> {
    let queue = trial.queue("first")?;
    let declared = trial.alone(async |session| {
        trial.step("declare a queue");
        hello::declare(&session.channel, &queue, QueueType::Exclusive).await?;
        trial.step("delete a queue");
        queue_lifecycle::delete(&session.channel, &queue, Default::default()).await
    });
    declared.await?;
    pass("")
}

async fn publish_and_get(trial: Trial) -> Result<Finding> {
    let queue = trial.queue("first")?;
    let body = trial.payload("first message");
    let got = trial.alone(async |session| {
        let channel = &session.channel;
        trial.step("declare a queue");
        // Not exclusive: a broker that is short of memory does not notice the end of a connection, and until
        // then nobody else could delete its queues.
        let options = QueueType::Classic.options();
        queue_lifecycle::declare(channel, &queue, options, trial.expiring().classic()).await?;
        let sent = Instant::now();
        publish(&trial, channel, "", &queue, &body).await?;
        trial.step("get the message back");
        let got = channel.basic_get(queue.as_str().into(), BasicGetOptions { no_ack: true });
        let got = got.deadline("get a message").await?.map(|got| (got, sent.elapsed()));
        trial.step("delete a queue");
        queue_lifecycle::delete(channel, &queue, Default::default()).await?;
        Ok(got)
    });
    let Some((message, took)) = got.await? else {
        return Err(fault(
            "the message in the queue, as the broker has confirmed it",
            "an empty queue",
            "look for a policy that limits or redirects messages (max-length, message-ttl): \
             rabbitmqctl list_policies -p {vhost}; rabbitmqctl list_operator_policies -p {vhost}",
        ));
    };
    let seen = String::from_utf8_lossy(&message.data).into_owned();
    same("the body", &body, &seen, "something between this program and the broker changes messages")?;
    pass(format!("there and back in {}", rounded(took)))
}
