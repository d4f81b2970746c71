//! Connections that last: idle with heartbeats, and back after a loss.

use std::time::Duration;

use lapin::options::BasicRecoverOptions;
use lapin::{Channel, Consumer};
use shared::{Connection, Deadline, Error, Result, RetryPolicy, State};
use tokio::time::sleep;

use super::queues::declare;
use super::{BASE, of_features};
use crate::check::{Check, Finding, Group, Stop, pass};
use crate::messages::{consume, expect_only, publish};
use crate::trial::Trial;

/// A broker looks once in a heartbeat's time, here 1 s, and ends a connection of which it has heard nothing twice in a
/// row: up to 3 s after the last it heard.
const IDLE: Duration = Duration::from_millis(3500);

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "heartbeat",
        about: "an idle connection stays open by its heartbeats",
        group: Group::Features,
        needs: BASE,
        rests: IDLE,
        run: |trial| Box::pin(heartbeat(trial)),
    },
    of_features(
        "reconnect",
        "a connection that the broker closes comes back, with all that was on it",
        |trial| Box::pin(reconnect(trial)),
    ),
];

async fn heartbeat(trial: Trial) -> Result<Finding> {
    let run = trial.run();
    let connection = trial.connect_with(&run.args_for(run.connect_limit()).with_heartbeat(1)).await?;
    let idle = trial.on(&connection, async |session| {
        let channel = &session.channel;
        let queue = declare(&trial, channel, "idle").await?;
        let mut consumer = consume(&trial, channel, &queue).await?;
        trial.step("keep an idle connection open by heartbeats");
        sleep(IDLE).await;
        there_and_back(&trial, channel, &mut consumer).await
    });
    idle.await?;
    pass(format!("{:.1} s with a heartbeat of 1 s", IDLE.as_secs_f64()))
}

async fn there_and_back(trial: &Trial, channel: &Channel, consumer: &mut Consumer) -> Result<()> {
    let body = trial.payload("there and back");
    publish(trial, channel, "", consumer.queue().as_str(), &body).await?;
    expect_only(trial, channel, consumer, &[body]).await.map(drop)
}

async fn reconnect(trial: Trial) -> Result<Finding> {
    let run = trial.run();
    let args = run.args_for(run.connect_limit()).with_retry(RetryPolicy::default());
    let connection = trial.connect_with(&args).await?;
    use_and_break(&trial, &connection).await?;
    trial.step("connect again");
    let mut state = connection.state();
    let up = state
        .wait_for(|state| !matches!(state, State::Up { generation: 1 } | State::Reconnecting { .. }))
        .await;
    if let Ok(State::Closed { cause: Some(cause) }) = up.as_deref() {
        return Err(Error::Lost(cause.clone()));
    }
    drop(up);
    let again = trial.on(&connection, async |session| {
        // The broker has forgotten the queue with the connection that it was for.
        let queue = declare(&trial, &session.channel, "own").await?;
        let mut consumer = consume(&trial, &session.channel, &queue).await?;
        there_and_back(&trial, &session.channel, &mut consumer).await
    });
    again.await?;
    pass("closed by the broker, connected again, queue and consumer made anew")
}

/// Uses a connection, then asks for something that no broker has, which ends it.
async fn use_and_break(trial: &Trial, connection: &Connection) -> Result<()> {
    let broken = trial.on(connection, async |session| {
        let channel = &session.channel;
        let queue = declare(trial, channel, "own").await?;
        let mut consumer = consume(trial, channel, &queue).await?;
        there_and_back(trial, channel, &mut consumer).await?;
        trial.step("have the connection closed");
        let recover = channel.basic_recover(BasicRecoverOptions { requeue: false });
        recover.deadline("ask for what no broker has").await
    });
    match broken.await {
        Err(error) if error.code() == Some(540) => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(Stop::Skip(
            "this broker does not close a connection for basic.recover without requeue".to_owned(),
        )
        .into()),
    }
}
