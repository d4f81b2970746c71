//! What exchanges can do besides the patterns.

use lapin::options::{ExchangeBindOptions, QueueBindOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Consumer, ExchangeKind};
use shared::{Deadline, Result};

use super::of_features;
use super::patterns::declare_exchange;
use super::queues::declare;
use crate::check::{Check, Finding, pass};
use crate::messages::{consume, expect_only, publish};
use crate::trial::{Trial, feature};

pub(super) const CHECKS: &[Check] = &[
    of_features("headers", "a headers exchange matches all or any headers", |trial| Box::pin(headers(trial))),
    of_features("exchange-binding", "an exchange passes messages on to another one", |trial| {
        Box::pin(exchange_binding(trial))
    }),
    of_features("alternate-exchange", "what no binding wants goes to the alternate exchange", |trial| {
        Box::pin(alternate_exchange(trial))
    }),
];

/// Binds a queue to an exchange.
pub(super) async fn bind(
    channel: &Channel,
    queue: &str,
    exchange: &str,
    key: &str,
    arguments: FieldTable,
) -> Result<()> {
    let options = QueueBindOptions::default();
    let bound = channel.queue_bind(queue.into(), exchange.into(), key.into(), options, arguments);
    bound.deadline("bind a queue").await
}

/// An exchange with a first queue that is bound to it, and a consumer on that.
async fn exchange_with_receiver(
    trial: &Trial,
    channel: &Channel,
    (exchange, kind, arguments): (&str, ExchangeKind, FieldTable),
    (queue, key, binding): (&str, &str, FieldTable),
) -> Result<(String, Consumer)> {
    let queue = declare(trial, channel, queue).await?;
    let exchange = declare_exchange(trial, channel, exchange, kind, arguments).await?;
    feature(bind(channel, &queue, &exchange, key, binding).await)?;
    Ok((exchange, consume(trial, channel, &queue).await?))
}

fn table(entries: &[(&'static str, &str)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert((*name).into(), AMQPValue::LongString((*value).into()));
    }
    table
}

type Entries = &'static [(&'static str, &'static str)];

/// Headers that are sent, and which of the receivers `all` and `any` wants them.
const HEADERS: [(Entries, bool, bool); 3] = [
    (&[("format", "pdf"), ("type", "report"), ("year", "2023")], true, true),
    (&[("format", "pdf"), ("type", "letter")], false, true),
    (&[("type", "letter")], false, false),
];

async fn headers(trial: Trial) -> Result<Finding> {
    let routed = trial.alone(async |session| {
        let channel = &session.channel;
        let wanted = |x_match| table(&[("x-match", x_match), ("format", "pdf"), ("type", "report")]);
        let kind = ("headers", ExchangeKind::Headers, FieldTable::default());
        let (exchange, mut all) =
            exchange_with_receiver(&trial, channel, kind, ("all", "", wanted("all"))).await?;
        let exchange = &exchange;
        let queue = declare(&trial, channel, "any").await?;
        bind(channel, &queue, exchange, "", wanted("any")).await?;
        let mut any = consume(&trial, channel, &queue).await?;
        let (mut for_all, mut for_any) = (Vec::new(), Vec::new());
        for (entries, matches_all, matches_any) in HEADERS {
            let body = trial.payload(&format!("{entries:?}"));
            let properties = BasicProperties::default().with_headers(table(entries));
            trial.step("get the broker's confirm for a message");
            match queue_lifecycle::publish(channel, exchange, "", properties, body.as_bytes()).await {
                Err(shared::Error::Returned { code: 312, .. }) if !matches_any => {}
                other => other?,
            }
            for_all.extend(matches_all.then(|| body.clone()));
            for_any.extend(matches_any.then_some(body));
        }
        expect_only(&trial, channel, &mut all, &for_all).await?;
        expect_only(&trial, channel, &mut any, &for_any).await
    });
    routed.await?;
    pass("x-match all and any")
}

async fn exchange_binding(trial: Trial) -> Result<Finding> {
    let bodies = [trial.payload("passed on")];
    let routed = trial.alone(async |session| {
        let channel = &session.channel;
        let none = FieldTable::default;
        let target = ("target", ExchangeKind::Fanout, none());
        let (target, mut receiver) =
            exchange_with_receiver(&trial, channel, target, ("receiver", "", none())).await?;
        let source = declare_exchange(&trial, channel, "source", ExchangeKind::Topic, none()).await?;
        trial.step("bind an exchange to an exchange");
        let bound = channel.exchange_bind(
            target.as_str().into(),
            source.as_str().into(),
            "passed.*".into(),
            ExchangeBindOptions::default(),
            FieldTable::default(),
        );
        feature(bound.deadline("bind an exchange").await)?;
        publish(&trial, channel, &source, "passed.on", &bodies[0]).await?;
        expect_only(&trial, channel, &mut receiver, &bodies).await
    });
    routed.await?;
    pass("topic to fanout")
}

async fn alternate_exchange(trial: Trial) -> Result<Finding> {
    let [wanted, unwanted] = ["wanted", "unwanted"].map(|what| trial.payload(what));
    let routed = trial.alone(async |session| {
        let channel = &session.channel;
        let none = FieldTable::default;
        let alternate = ("alternate", ExchangeKind::Fanout, none());
        let (alternate, mut of_alternate) =
            exchange_with_receiver(&trial, channel, alternate, ("rest", "", none())).await?;
        let first = ("first", ExchangeKind::Direct, table(&[("alternate-exchange", &alternate)]));
        let (first, mut of_first) =
            exchange_with_receiver(&trial, channel, first, ("chosen", "wanted", none())).await?;
        publish(&trial, channel, &first, "wanted", &wanted).await?;
        publish(&trial, channel, &first, "unwanted", &unwanted).await?;
        expect_only(&trial, channel, &mut of_first, &[wanted]).await?;
        expect_only(&trial, channel, &mut of_alternate, &[unwanted]).await
    });
    routed.await?;
    pass("")
}
