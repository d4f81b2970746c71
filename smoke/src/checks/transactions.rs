//! Transactions: nothing before the commit, everything after; nothing after a rollback.

use std::time::Duration;

use shared::{QueueType, Result};
use transactions::{TrialQueue, arrivals, tx};

use super::BASE;
use crate::check::{Check, Finding, Group, fault, pass};
use crate::messages::same;
use crate::trial::{Trial, feature, random_word, unwrapped};

pub(super) const CHECKS: &[Check] = &[
    Check {
        name: "tx-commit",
        about: "a transaction takes effect at its commit, and wholly",
        group: Group::Patterns,
        needs: BASE,
        rests: Duration::ZERO,
        run: |trial| Box::pin(transaction(trial, true)),
    },
    Check {
        name: "tx-rollback",
        about: "a transaction that is rolled back has no effect",
        group: Group::Patterns,
        needs: BASE,
        rests: Duration::ZERO,
        run: |trial| Box::pin(transaction(trial, false)),
    },
];

const MESSAGES: usize = 3;

async fn transaction(trial: Trial, commit: bool) -> Result<Finding> {
    let queue = TrialQueue { name: trial.queue("tx")?, queue_type: QueueType::Exclusive, limit: None };
    let ids: Vec<_> = (0..MESSAGES).map(|number| format!("{}-{number}", random_word())).collect();
    let connection = trial.connect().await?;
    let done = trial.on(&connection, async |session| {
        let channel = &session.channel;
        trial.step("declare a queue");
        queue.declare(channel).await?;
        trial.step("switch on transactions");
        feature(tx::select(channel).await)?;
        for id in &ids {
            tx::publish(channel, &queue.name, id).await?;
        }
        trial.step("find nothing in the queue before the commit");
        let before = queue.count(channel).await?;
        same("messages before the end of the transaction:", &0, &before, "the broker ignores transactions")?;
        if commit {
            trial.step("commit");
            tx::commit(channel).await.map_err(|error| match error {
                tx::CommitError::NotDone(cause) | tx::CommitError::Unknown(cause) => cause,
            })
        } else {
            trial.step("roll back");
            tx::rollback(channel).await
        }
    });
    done.await?;
    trial.step("receive what the transaction left");
    let arrived = arrivals::collect(&connection, &queue).await.map_err(unwrapped)?;
    let mut seen: Vec<_> = arrived.iter().map(|(id, copies)| (id.as_str(), *copies)).collect();
    seen.sort_unstable();
    let mut expected: Vec<_> = ids.iter().filter(|_| commit).map(|id| (id.as_str(), 1)).collect();
    expected.sort_unstable();
    if seen != expected {
        let what =
            if commit { "each message once after the commit" } else { "no message after the rollback" };
        return Err(fault(what, format!("{seen:?}"), "rabbitmq-diagnostics log_tail"));
    }
    pass(if commit { format!("{MESSAGES} messages at once") } else { format!("{MESSAGES} messages undone") })
}
