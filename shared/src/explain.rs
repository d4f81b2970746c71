//! One line of cause and the next command to type, for each way in which a broker says no.

use std::io;

use lapin::ErrorKind;

use crate::{Endpoint, Error, shell_word};

/// lapin ends a connection on anything that it cannot read, and the broker delivers the message again.
const UNREADABLE: &str = "a peer that is no AMQP broker sends such things, and so does a message whose properties \
    are not UTF-8: look for it with rabbitmqctl list_queues, and remove it with rabbitmqctl purge_queue";

/// What failed, in lapin's or the broker's words, short and on one line.
pub(crate) fn in_words(error: &lapin::Error) -> String {
    let words = match error.kind() {
        ErrorKind::ProtocolError(error) => format!("{} {}", error.get_id(), error.get_message()),
        ErrorKind::IOError(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
            io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
            io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => {
                "connection closed by the peer".to_owned()
            }
            io::ErrorKind::BrokenPipe => "connection broken".to_owned(),
            io::ErrorKind::TimedOut => "no answer".to_owned(),
            _ => error.to_string(),
        },
        ErrorKind::ParsingError(_) => "what came cannot be read as AMQP".to_owned(),
        _ => error.to_string(),
    };
    words.replace(char::is_control, " ")
}

impl Error {
    /// The next thing to try, where there is one: a sentence with a command that can be pasted.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Connect { endpoint, cause } => connect_hint(endpoint, cause),
            Self::Refused { cause, .. } | Self::Ended(cause) => match cause.kind() {
                ErrorKind::ParsingError(_) => Some(UNREADABLE.to_owned()),
                ErrorKind::ProtocolError(error) => refusal_hint(error.get_id(), error.get_message().as_str()),
                _ => None,
            },
            Self::Exhausted { cause, .. } => cause.hint(),
            Self::Lost(cause) | Self::Closed(cause) => cause.hint(),
            Self::Timeout { .. } => {
                Some("see whether it is in trouble: rabbitmq-diagnostics status".to_owned())
            }
            Self::Blocked { .. } => {
                Some("see which resource is short: rabbitmq-diagnostics alarms".to_owned())
            }
            Self::Returned { code: 312, exchange, routing_key, .. } if exchange.is_empty() => {
                Some(format!("no queue '{routing_key}' exists: start its consumer first, or declare it"))
            }
            Self::Returned { code: 312, exchange, .. } => Some(format!(
                "no queue is bound for it: rabbitmqctl list_bindings | grep {}",
                shell_word(exchange)
            )),
            Self::Nacked => {
                Some("look for a full queue: rabbitmqctl list_queues name messages arguments".to_owned())
            }
            _ => None,
        }
    }

    /// The error and its hint on one line.
    #[must_use]
    pub fn explain(&self) -> String {
        match self.hint() {
            Some(hint) => format!("{self}; {hint}"),
            None => self.to_string(),
        }
    }
}

fn connect_hint(endpoint: &Endpoint, cause: &lapin::Error) -> Option<String> {
    let (address, user, vhost) = (&endpoint.address(), endpoint.user(), endpoint.vhost());
    let (user_word, vhost_word) = (shell_word(user), shell_word(vhost));
    let hint = match cause.kind() {
        ErrorKind::ProtocolError(error) => match error.get_id() {
            403 if user == "guest" && !is_loopback(address) => {
                "the user guest may log in from the broker's own machine only: give another user and password in --url or AMQP_URL"
                    .to_owned()
            }
            403 => format!(
                "the user '{user}' or its password is wrong: correct --url or AMQP_URL, or on the broker: \
                 rabbitmqctl change_password {user_word} NEW"
            ),
            530 if error.get_message().as_str().contains("not found") => {
                format!("no such vhost: correct the end of --url or AMQP_URL, or on the broker: rabbitmqctl add_vhost {vhost_word}")
            }
            530 => format!(
                "the user '{user}' has no access to the vhost '{vhost}': rabbitmqctl set_permissions -p {vhost_word} {user_word} '.*' '.*' '.*'"
            ),
            320 | 541 => "the node or the vhost is starting or stopping: rabbitmq-diagnostics check_running".to_owned(),
            _ => return None,
        },
        ErrorKind::ParsingError(_) => format!(
            "{address} does not answer in AMQP: a port that wants TLS needs amqps:// in --url, and the AMQP port is \
             5672 (TLS 5671)"
        ),
        ErrorKind::IOError(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused => format!(
                "nothing listens on {address}: start a broker with `cargo run -p broker` or `docker compose up -d --wait`, \
                 or name yours in --url or AMQP_URL"
            ),
            io::ErrorKind::InvalidData => tls_hint(address, &error.to_string()),
            io::ErrorKind::TimedOut => format!(
                "{address} takes connections but does not answer as a broker: is it the AMQP port (5672, TLS 5671), \
                 and does rabbitmq-diagnostics check_running say yes?"
            ),
            // The alert that says so may be lost with the connection.
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof
                if endpoint.is_tls() =>
            {
                format!(
                    "{address} hung up during the handshake, as it does when it wants a client certificate: give \
                     --client-cert FILE and --client-key FILE"
                )
            }
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::UnexpectedEof => format!(
                "{address} hung up during the handshake: a port that wants TLS needs amqps:// in --url, \
                 and the AMQP port is 5672 (TLS 5671)"
            ),
            _ if error.to_string().contains("lookup address") => {
                format!("the host name of {address} is not known here: correct --url or AMQP_URL (inside a container, localhost is the container)")
            }
            _ => return None,
        },
        _ => return None,
    };
    Some(hint)
}

fn tls_hint(address: &str, words: &str) -> String {
    for (word, hint) in [
        ("InvalidContentType", "the port speaks no TLS: use amqp:// for it, or the TLS port (5671)"),
        (
            "UnknownIssuer",
            "its certificate is not from an authority trusted here: give that authority with --ca-cert FILE",
        ),
        (
            "CertificateRequired",
            "it asks for a client certificate: give --client-cert FILE and --client-key FILE",
        ),
        (
            "alert: UnknownCA",
            "it does not trust the client certificate: give a certificate from its own authority with --client-cert FILE and --client-key FILE",
        ),
        (
            "alert: HandshakeFailure",
            "it misses a client certificate, or does not take this one, or none of this program's versions of TLS: give --client-cert FILE and --client-key FILE of its own authority",
        ),
        ("not valid for name", "its certificate is for another host name: connect by a name that it lists"),
        ("certificate expired", "its certificate has expired: renew it on the broker"),
        ("not valid yet", "its certificate is not valid yet: check the clocks"),
    ] {
        if words.contains(word) {
            return format!("{hint}; to look at it: openssl s_client -connect {address}");
        }
    }
    format!("TLS failed; to look at it: openssl s_client -connect {address}")
}

fn is_loopback(address: &str) -> bool {
    ["localhost:", "127.", "[::1]:"].iter().any(|start| address.starts_with(start))
}

fn refusal_hint(code: u16, text: &str) -> Option<String> {
    let queue = quoted_after(text, "queue '");
    let hint = match code {
        403 if text.contains("access to") => format!(
            "the user lacks a permission: rabbitmqctl set_permissions -p {} {} '.*' '.*' '.*'",
            shell_word(quoted_after(text, "vhost '").unwrap_or("VHOST")),
            shell_word(quoted_after(text, "user '").unwrap_or("USER")),
        ),
        403 if text.contains("exclusive use") => {
            format!("another consumer holds the queue for itself: {}", rabbitmqctl("list_consumers", text))
        }
        404 => match (queue, quoted_after(text, "exchange '")) {
            (Some(queue), _) => format!("declare the queue '{queue}' first, by starting its consumer"),
            (None, Some(exchange)) => format!("declare the exchange '{exchange}' first, by starting the program that declares it"),
            (None, None) => return None,
        },
        405 => format!(
            "the queue belongs to another connection alone: stop that program, or {} name exclusive owner_pid",
            rabbitmqctl("list_queues", text)
        ),
        406 if text.contains("inequivalent arg") => match (queue, quoted_after(text, "exchange '")) {
            (Some(queue), _) => format!(
                "the queue '{queue}' exists with another {}: use the same --queue-type as its declarer, another --prefix, \
                 or remove it with its messages: {} {}",
                quoted_after(text, "inequivalent arg '").unwrap_or("declaration"),
                rabbitmqctl("delete_queue", text),
                shell_word(queue)
            ),
            (None, Some(exchange)) => {
                format!("the exchange '{exchange}' exists with another declaration: use another --prefix, or delete it in the management page")
            }
            (None, None) => return None,
        },
        406 if text.contains("larger than") => {
            "the broker takes no message that is larger (RabbitMQ 4 up to 16 MiB unless told otherwise, earlier ones \
             up to 128 MiB): send less in each, or set max_message_size in rabbitmq.conf"
                .to_owned()
        }
        406 => unknown_argument_hint(text)?,
        540 => "this broker does not have that feature".to_owned(),
        541 if text.contains("transient_nonexcl_queues") => {
            "RabbitMQ 4.3 and later refuse transient queues: use --queue-type quorum or classic, or permit them with \
             deprecated_features.permit.transient_nonexcl_queues = true in rabbitmq.conf"
                .to_owned()
        }
        541 => "the broker's log says more: rabbitmq-diagnostics log_tail".to_owned(),
        _ => return None,
    };
    Some(hint)
}

/// The command for the vhost that the broker's text is about.
fn rabbitmqctl(command: &str, text: &str) -> String {
    format!("rabbitmqctl {command} -p {}", shell_word(quoted_after(text, "vhost '").unwrap_or("/")))
}

/// What to do where a queue cannot have one of its arguments, on this broker, or with its type.
fn unknown_argument_hint(text: &str) -> Option<String> {
    let argument = quoted_after(text, "invalid arg '")?;
    let (_, rest) = text.split_once("in vhost '")?;
    // The words after the vhost's name are about a value that makes no sense on any broker.
    let wrong_value = rest.split_once('\'').is_some_and(|(_, words)| words.starts_with(": "));
    Some(match argument {
        "x-queue-type" => {
            "this broker has no queues of that type: quorum queues came with RabbitMQ 3.8, streams with 3.9"
                .to_owned()
        }
        _ if wrong_value => return None,
        "x-queue-mode" => {
            "only classic queues have that mode, and since RabbitMQ 3.12 without any effect: leave --lazy away"
                .to_owned()
        }
        "x-message-ttl" | "x-expires" | "x-overflow" => {
            format!("quorum queues have {argument} since RabbitMQ 3.10: use --queue-type classic on this broker")
        }
        _ => format!("queues of this type have no {argument} on this broker"),
    })
}

/// The text between `start`, which ends in a quotation mark, and the next one.
fn quoted_after<'t>(text: &'t str, start: &str) -> Option<&'t str> {
    text.split_once(start)?.1.split_once('\'').map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lapin::protocol::{AMQPError, AMQPErrorKind};

    use super::*;

    fn said(code: u16, text: &str) -> lapin::Error {
        let kind = AMQPErrorKind::from_id(code).unwrap();
        ErrorKind::ProtocolError(AMQPError::new(kind, text.into())).into()
    }

    /// Replies as brokers of several versions sent them, and what must be in the explanation.
    #[test]
    fn each_refusal_names_the_next_command() {
        for (code, text, words) in [
            (
                541,
                "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated. Its use is not permitted per the configuration",
                "use --queue-type quorum or classic",
            ),
            (541, "INTERNAL_ERROR", "rabbitmq-diagnostics log_tail"),
            (
                406,
                "PRECONDITION_FAILED - message size 17825792 is larger than configured max size 16777216",
                "send less in each, or set max_message_size in rabbitmq.conf",
            ),
            (
                406,
                "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q' in vhost '/'",
                "quorum queues have x-message-ttl since RabbitMQ 3.10: use --queue-type classic",
            ),
            (
                406,
                "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': invalid_queue_type",
                "streams with 3.9",
            ),
            (
                406,
                "PRECONDITION_FAILED - invalid arg 'x-queue-mode' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue",
                "leave --lazy away",
            ),
            (
                406,
                "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/' of queue type rabbit_quorum_queue",
                "queues of this type have no x-max-priority",
            ),
            (540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)", "does not have that feature"),
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'hello' in vhost '/': received 'true' but current is 'false'",
                "the queue 'hello' exists with another durable",
            ),
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'q' in vhost 'shop': received 'true' but current is 'false'",
                "rabbitmqctl delete_queue -p shop q",
            ),
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg 'durable' for queue '$(x)' in vhost 'my shop': received 'true' but current is 'false'",
                "rabbitmqctl delete_queue -p 'my shop' '$(x)'",
            ),
            (
                405,
                "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost 'shop'",
                "rabbitmqctl list_queues -p shop name",
            ),
            (
                406,
                "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'logs' in vhost '/': received 'topic' but current is 'fanout'",
                "the exchange 'logs' exists with another declaration",
            ),
            (
                405,
                "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'",
                "belongs to another connection",
            ),
            (404, "NOT_FOUND - no queue 'q' in vhost '/'", "declare the queue 'q' first"),
            (404, "NOT_FOUND - no exchange 'x' in vhost '/'", "declare the exchange 'x' first"),
            (
                403,
                "ACCESS_REFUSED - access to queue 'q' in vhost '/' refused for user 'u'",
                "rabbitmqctl set_permissions -p / u ",
            ),
            (
                403,
                "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use",
                "rabbitmqctl list_consumers -p /",
            ),
        ] {
            let line = Error::Refused { step: "declare a queue", cause: said(code, text) }.explain();
            assert!(line.starts_with(&format!("Failed to declare a queue: {code} {text}; ")), "{line}");
            assert!(line.contains(words), "{words}: {line}");
        }
    }

    #[test]
    fn what_a_broker_says_is_one_line_and_leaves_the_terminal_alone() {
        assert_eq!(in_words(&said(404, "no\r\nqueue '\u{1b}[2J'")), "404 no  queue ' [2J'");
    }

    #[test]
    fn a_value_that_makes_no_sense_is_not_blamed_on_the_version() {
        for text in [
            "PRECONDITION_FAILED - invalid arg 'x-message-ttl' for queue 'q' in vhost '/': {value_negative,-1}",
            "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'q' in vhost '/'",
        ] {
            assert_eq!(refusal_hint(406, text), None, "{text}");
        }
    }

    #[test]
    fn each_refused_connection_names_the_next_command() {
        let local = "amqp://u:secret@localhost/shop";
        for (url, cause, words) in [
            (local, said(403, "ACCESS_REFUSED - Login was refused"), "rabbitmqctl change_password u NEW"),
            (
                "amqp://broker.example",
                said(403, "ACCESS_REFUSED"),
                "guest may log in from the broker's own machine only",
            ),
            (local, said(530, "NOT_ALLOWED - vhost shop not found"), "rabbitmqctl add_vhost shop"),
            (
                "amqp://a%20b:secret@localhost/my%20shop",
                said(530, "NOT_ALLOWED - access to vhost 'my shop' refused"),
                "rabbitmqctl set_permissions -p 'my shop' 'a b' '.*'",
            ),
            (
                local,
                said(530, "NOT_ALLOWED - access to vhost refused"),
                "rabbitmqctl set_permissions -p shop u",
            ),
            (local, said(320, "CONNECTION_FORCED - broker shutdown"), "rabbitmq-diagnostics check_running"),
            (local, io::Error::from(io::ErrorKind::ConnectionRefused).into(), "cargo run -p broker"),
            (local, io::Error::from(io::ErrorKind::TimedOut).into(), "is it the AMQP port"),
            (local, io::Error::from(io::ErrorKind::ConnectionReset).into(), "amqps://"),
            (
                local,
                io::Error::new(io::ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer").into(),
                "--ca-cert",
            ),
            (
                local,
                io::Error::new(io::ErrorKind::InvalidData, "fatal alert: CertificateRequired").into(),
                "--client-cert",
            ),
        ] {
            let endpoint = Arc::new(Endpoint::parse(url).unwrap());
            let line = Error::Connect { endpoint, cause }.explain();
            assert!(line.contains(words) && !line.contains("secret"), "{words}: {line}");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_will_not_is_not() {
        let refused = |code, text| Error::Refused { step: "declare a queue", cause: said(code, text) };
        for (code, text, at_first, later) in [
            (320, "CONNECTION_FORCED", true, true),
            (403, "ACCESS_REFUSED", false, false),
            (404, "NOT_FOUND", false, true),
            (405, "RESOURCE_LOCKED", false, true),
            (406, "PRECONDITION_FAILED - inequivalent arg", false, false),
            (406, "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out", true, true),
            // The same from RabbitMQ 3.8.9.
            (406, "PRECONDITION_FAILED - consumer ack timed out on channel 1", true, true),
            (540, "NOT_IMPLEMENTED", false, false),
            (541, "INTERNAL_ERROR", true, true),
            (541, "INTERNAL_ERROR - Feature `transient_nonexcl_queues` is deprecated.", false, false),
        ] {
            let error = refused(code, text);
            assert_eq!((error.is_transient(false), error.is_transient(true)), (at_first, later), "{text}");
        }
    }
}
