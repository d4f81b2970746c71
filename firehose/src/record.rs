//! A trace as RabbitMQ's tracing plugin writes it to its files.

use std::fmt;
use std::time::SystemTime;

use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, LongString};

use crate::term::{Binaries, Table};

/// A message that passed the broker, and the circumstances. `Display` gives the lines of a trace file.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When the trace came here. The broker does not say when it wrote it.
    pub time: SystemTime,
    /// What happened to the message.
    pub event: Event,
    /// The broker's node.
    pub node: String,
    /// The client's connection, as `address:port -> address:port`.
    pub connection: String,
    /// The vhost.
    pub vhost: String,
    /// Who was logged in.
    pub user: String,
    /// The channel on that connection.
    pub channel: i64,
    /// Where the message was published; empty for the default exchange.
    pub exchange: String,
    /// Its routing key, and those of its `CC` and `BCC` headers.
    pub routing_keys: Vec<String>,
    /// Its properties, those that are set.
    pub properties: FieldTable,
    /// Its body.
    pub payload: Vec<u8>,
}

/// The two occasions on which the broker writes a trace.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// A client published the message.
    Published {
        /// The queues that it was routed to.
        routed_queues: Vec<String>,
    },
    /// A client got the message from a queue.
    Received {
        /// That queue.
        queue: String,
    },
}

impl Record {
    /// Reads a message from the trace exchange; `None` if it is no trace. No client can publish there, but
    /// somebody may have bound another exchange to it.
    #[must_use]
    pub fn read(delivery: &Delivery, time: SystemTime) -> Option<Self> {
        let headers = Headers(delivery.properties.headers().as_ref()?);
        let event = match delivery.routing_key.as_str().split_once('.')? {
            ("publish", _) => Event::Published { routed_queues: headers.texts("routed_queues")? },
            ("deliver", queue) => Event::Received { queue: queue.to_owned() },
            _ => return None,
        };
        Some(Self {
            time,
            event,
            node: headers.text("node")?,
            connection: headers.text("connection")?,
            vhost: headers.text("vhost")?,
            user: headers.text("user")?,
            channel: headers.number("channel")?,
            exchange: headers.text("exchange_name")?,
            routing_keys: headers.texts("routing_keys")?,
            properties: headers.table("properties")?,
            payload: delivery.data.clone(),
        })
    }

    /// A property of the message that is a text, such as `type` or `message_id`.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<String> {
        Headers(&self.properties).text(name)
    }
}

struct Headers<'h>(&'h FieldTable);

impl Headers<'_> {
    fn get(&self, key: &str) -> Option<&AMQPValue> {
        self.0.inner().get(key)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.get(key).and_then(text)
    }

    fn texts(&self, key: &str) -> Option<Vec<String>> {
        match self.get(key)? {
            AMQPValue::FieldArray(values) => values.as_slice().iter().map(text).collect(),
            _ => None,
        }
    }

    fn number(&self, key: &str) -> Option<i64> {
        match self.get(key)? {
            AMQPValue::LongInt(number) => Some(i64::from(*number)),
            AMQPValue::LongLongInt(number) => Some(*number),
            _ => None,
        }
    }

    fn table(&self, key: &str) -> Option<FieldTable> {
        match self.get(key)? {
            AMQPValue::FieldTable(table) => Some(table.clone()),
            _ => None,
        }
    }
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(lossy(text)),
        _ => None,
    }
}

fn lossy(text: &LongString) -> String {
    String::from_utf8_lossy(text.as_bytes()).into_owned()
}

impl fmt::Display for Record {
    /// Begins with an empty line. The payload is shown as text, whatever it is, and the end of its last
    /// line is left to the printing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.event {
            Event::Published { .. } => "published",
            Event::Received { .. } => "received",
        };
        writeln!(f, "\n{:=<80}", "")?;
        writeln!(f, "{}: Message {what}\n", humantime::format_rfc3339_millis(self.time))?;
        writeln!(f, "Node:         {}", self.node)?;
        writeln!(f, "Connection:   {}", self.connection)?;
        writeln!(f, "Virtual host: {}", self.vhost)?;
        writeln!(f, "User:         {}", self.user)?;
        writeln!(f, "Channel:      {}", self.channel)?;
        writeln!(f, "Exchange:     {}", self.exchange)?;
        writeln!(f, "Routing keys: {}", Binaries(&self.routing_keys))?;
        match &self.event {
            Event::Published { routed_queues } => writeln!(f, "Routed queues: {}", Binaries(routed_queues))?,
            Event::Received { queue } => writeln!(f, "Queue:        {queue}")?,
        }
        writeln!(f, "Properties:   {}", Table(&self.properties))?;
        write!(f, "Payload: \n{}", String::from_utf8_lossy(&self.payload))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PUBLISHED: &str = r#"
================================================================================
2023-10-31T13:52:45.102Z: Message published

Node:         rabbit@55b3aad61783
Connection:   172.17.0.1:49450 -> 172.17.0.2:5672
Virtual host: /
User:         admin
Channel:      1
Exchange:     
Routing keys: [<<"hello">>]
Routed queues: [<<"hello">>]
Properties:   [{<<"content_type">>,longstr,<<"text/plain">>}]
Payload: 
Hello World!"#;

    const RECEIVED: &str = r#"
================================================================================
2023-10-31T13:52:45.105Z: Message received

Node:         rabbit@55b3aad61783
Connection:   172.17.0.1:47552 -> 172.17.0.2:5672
Virtual host: /
User:         admin
Channel:      1
Exchange:     
Routing keys: [<<"hello">>]
Queue:        hello
Properties:   [{<<"content_type">>,longstr,<<"text/plain">>}]
Payload: 
Hello World!"#;

    #[test]
    fn the_lines_are_those_of_a_trace_file() {
        let mut properties = FieldTable::default();
        properties.insert("content_type".into(), AMQPValue::LongString("text/plain".into()));
        let published = Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1_698_760_365_102),
            event: Event::Published { routed_queues: vec!["hello".to_owned()] },
            node: "rabbit@55b3aad61783".to_owned(),
            connection: "172.17.0.1:49450 -> 172.17.0.2:5672".to_owned(),
            vhost: "/".to_owned(),
            user: "admin".to_owned(),
            channel: 1,
            exchange: String::new(),
            routing_keys: vec!["hello".to_owned()],
            properties,
            payload: b"Hello World!".to_vec(),
        };
        let received = Record {
            time: published.time + Duration::from_millis(3),
            event: Event::Received { queue: "hello".to_owned() },
            connection: "172.17.0.1:47552 -> 172.17.0.2:5672".to_owned(),
            ..published.clone()
        };
        assert_eq!(published.to_string(), PUBLISHED);
        assert_eq!(received.to_string(), RECEIVED);
    }
}
