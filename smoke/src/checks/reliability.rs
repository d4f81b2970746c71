//! Confirms and returns: what the broker says about each message, held against what arrives.

use shared::{Error, QueueType, Result};
use std::num::NonZero;
use transactions::confirms::{Plan, Strategy, publish_all};
use transactions::{Fate, Ledger, TrialQueue, arrivals};

use super::of_patterns;
use crate::check::{Check, Finding, fault, pass};
use crate::messages::same;
use crate::trial::{Trial, unwrapped};

pub(super) const CHECKS: &[Check] = &[
    of_patterns("confirms", "each message is confirmed, and what is confirmed arrives once", |trial| {
        Box::pin(confirms(trial))
    }),
    of_patterns("returns", "a mandatory message that no queue wants comes back with 312", |trial| {
        Box::pin(returns(trial))
    }),
];

const MESSAGES: usize = 100;

/// Messages that run ahead of their confirms.
const WINDOW: NonZero<usize> = NonZero::new(20).unwrap();

async fn confirms(trial: Trial) -> Result<Finding> {
    let ledger = publish(&trial, None).await?;
    same("confirms:", &MESSAGES, &ledger.with(Fate::Confirmed).len(), "rabbitmq-diagnostics log_tail")?;
    pass(format!("{MESSAGES} messages, each confirmed and received once"))
}

async fn returns(trial: Trial) -> Result<Finding> {
    const EVERY: usize = 4;
    let ledger = publish(&trial, NonZero::new(EVERY)).await?;
    let returned = ledger.with(Fate::Returned).len();
    same("returned messages:", &(MESSAGES / EVERY), &returned, "rabbitmq-diagnostics log_tail")?;
    trial.step("get a mandatory message back");
    let nobody = trial.name("nobody")?;
    let lone = trial.alone(async |session| {
        Ok(hello::send(&session.channel, &nobody, &trial.payload("unwanted"), "1").await)
    });
    match lone.await? {
        Err(Error::Returned { code: 312, .. }) => {}
        Err(Error::Returned { code, text, .. }) => {
            return Err(fault(
                "the reply code 312",
                format!("{code} {text}"),
                "rabbitmq-diagnostics log_tail",
            ));
        }
        Err(error) => return Err(error),
        Ok(()) => {
            return Err(fault(
                "the mandatory message to be returned, as its queue does not exist",
                "a confirm without a return",
                "something between this program and the broker drops basic.return",
            ));
        }
    }
    pass(format!("{returned} of {MESSAGES} messages returned, and no other"))
}

/// Publishes with a window of confirms and holds the answers against what arrives.
async fn publish(trial: &Trial, unroutable_every: Option<NonZero<usize>>) -> Result<Ledger> {
    let queue = TrialQueue { name: trial.queue("confirmed")?, queue_type: QueueType::Exclusive, limit: None };
    let plan = Plan { queue: queue.name.clone(), unroutable_every, strategy: Strategy::Windowed(WINDOW) };
    let mut ledger = Ledger::new(MESSAGES);
    let connection = trial.connect().await?;
    let published = trial.on(&connection, async |session| {
        trial.step("declare a queue");
        queue.declare(&session.channel).await?;
        trial.step(format!("get the broker's confirms for {MESSAGES} messages"));
        publish_all(&session, &plan, &mut ledger).await
    });
    published.await?;
    trial.step("receive what was confirmed");
    let arrived = arrivals::collect(&connection, &queue).await.map_err(unwrapped)?;
    match ledger.compare(&arrived) {
        Ok(_) => Ok(ledger),
        Err(mismatch) => Err(fault(
            "each confirmed message once and no other",
            mismatch.to_string(),
            "look for policies, or for something between this program and the broker: rabbitmqctl list_policies -p {vhost}",
        )),
    }
}
