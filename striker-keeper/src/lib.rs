//! The resilient pair: `striker` shoots messages at an exchange, `keeper` catches them from a queue, and
//! both end with a tally that shows whether one was lost.

pub mod catches;
pub mod comparison;
pub mod numbers;
pub mod outages;
pub mod progress;
pub mod report;
pub mod shots;
pub mod tally;

use lapin::ExchangeKind;
use shared::{Binding, ConnectionArgs, Exchange, Queue, QueueType, Result, Topology};

/// The exchange, direct and durable.
pub const EXCHANGE: &str = "penalty";

/// What the striker's messages carry and the keeper's queue is bound with.
pub const ROUTING_KEY: &str = "spain";

/// The queue, and the name that the consumer's tags begin with.
pub const QUEUE: &str = "casillas";

/// The producer's name.
pub const PRODUCER: &str = "morientes";

/// What the striker needs: the exchange. Whether a queue listens is the keeper's business.
///
/// # Errors
/// [`shared::Error::Usage`] if the prefix makes a name too long.
pub fn striker_topology(args: &ConnectionArgs) -> Result<Topology> {
    let exchanges = vec![Exchange::new(args.name(EXCHANGE)?, ExchangeKind::Direct)];
    Ok(Topology { exchanges, ..Topology::default() })
}

/// What the keeper needs: the exchange, the queue and the binding between them. `lazy` asks for a mode that
/// only RabbitMQ before 3.12 knows.
///
/// # Errors
/// [`shared::Error::Usage`] if the prefix makes a name too long.
pub fn keeper_topology(args: &ConnectionArgs, queue_type: QueueType, lazy: bool) -> Result<Topology> {
    let queue = args.name(QUEUE)?;
    Ok(Topology {
        queues: vec![Queue { lazy, ..Queue::new(&queue, queue_type) }],
        bindings: vec![Binding::new(args.name(EXCHANGE)?, queue, ROUTING_KEY)],
        ..striker_topology(args)?
    })
}
