//! The delay: a message whose time to live is up comes out of the dead-letter exchange.

use std::time::{Duration, SystemTime};

use delayed_dlx::orders::{Order, Orders, Unpaid, WaitQueue, send};
use delayed_dlx::x_death::{Reason, XDeath};
use lapin::ExchangeKind;
use lapin::types::FieldTable;
use shared::{QueueType, Result, message_id};
use tokio::time::Instant;

use super::BASE;
use super::exchanges::bind;
use super::patterns::declare_exchange;
use super::queues::declare;
use crate::check::{Check, Finding, Group, fault, pass};
use crate::judge::rounded;
use crate::messages::{expect, same};
use crate::trial::Trial;

/// How long the message waits.
const DELAY: Duration = Duration::from_millis(200);

/// How much sooner it may come: the broker counts whole milliseconds, and both clocks have theirs.
const TOLERANCE: Duration = Duration::from_millis(5);

pub(super) const CHECKS: &[Check] = &[Check {
    name: "delay",
    about: "a message comes late, by a time to live and a dead-letter exchange",
    group: Group::Patterns,
    needs: BASE,
    rests: DELAY,
    run: |trial| Box::pin(delay(trial)),
}];

async fn delay(trial: Trial) -> Result<Finding> {
    let delayed = trial.alone(async |session| {
        let channel = &session.channel;
        let (unpaid, wait) = (declare(&trial, channel, "orders.unpaid").await?, trial.queue("orders.wait")?);
        let arguments = FieldTable::default();
        let exchange =
            declare_exchange(&trial, channel, "orders.dlx", ExchangeKind::Fanout, arguments).await?;
        bind(channel, &unpaid, &exchange, "", FieldTable::default()).await?;
        let orders = Orders { exchange, unpaid, queue_type: QueueType::Exclusive };
        let wait = WaitQueue { name: wait, ttl: Some(DELAY) };
        trial.step("declare the queue to wait in");
        orders.declare_wait_queue(channel, &wait).await?;
        let mut unpaid = orders.consume(channel).await?;
        let order = Order {
            text: trial.payload("order"),
            delay: DELAY,
            at: SystemTime::now(),
            message_id: message_id(),
        };
        let sent = Instant::now();
        trial.step("get the broker's confirm for a message");
        send(channel, &wait, &order).await?;
        let mut taken = expect(&trial, &mut unpaid, std::slice::from_ref(&order.text)).await?;
        Ok((taken.remove(0), sent.elapsed(), wait.name))
    });
    let (delivery, took, wait) = delayed.await?;
    if took + TOLERANCE < DELAY {
        let expected = format!("the message after {}", rounded(DELAY));
        return Err(fault(
            expected,
            format!("it after {}", rounded(took)),
            "rabbitmqctl list_policies -p {vhost}",
        ));
    }
    let read = Unpaid::read(&delivery, SystemTime::now());
    same("the delay that was asked for:", &Some(DELAY), &read.asked, "something changes headers")?;
    let expired = XDeath::of(&delivery.properties).count(&wait, &Reason::Expired);
    same("deaths of reason 'expired' in x-death:", &1, &expired, "rabbitmqctl list_policies -p {vhost}")?;
    pass(format!("{} instead of {}", rounded(took), rounded(DELAY)))
}
