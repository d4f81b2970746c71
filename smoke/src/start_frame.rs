//! What a broker says about itself before anybody logs in: the frame `connection.start`.

use std::io;
use std::time::Duration;

use futures_lite::{AsyncReadExt, AsyncWriteExt};
use lapin::protocol::connection::AMQPMethod;
use lapin::protocol::{AMQPClass, parse_class};
use lapin::types::{AMQPValue, FieldTable};
use shared::{Endpoint, Stream};
use tokio::time::timeout;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What a client says first: the protocol and its version.
const HEADER: &[u8] = b"AMQP\x00\x00\x09\x01";

/// A broker's greeting is some hundred bytes; more is no greeting.
const LONGEST: u32 = 64 * 1024;

/// Seconds in a day.
const DAY: i64 = 24 * 60 * 60;

/// What a broker says about itself.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Broker {
    /// Such as `RabbitMQ`.
    pub(crate) product: Option<String>,
    /// Such as `3.10.8`.
    pub(crate) version: Option<String>,
    /// The cluster's name.
    pub(crate) cluster: Option<String>,
    /// The ways to log in, such as `PLAIN AMQPLAIN`.
    pub(crate) mechanisms: String,
}

impl Broker {
    /// Product and version, as far as they are known.
    pub(crate) fn title(&self) -> String {
        let product = self.product.as_deref().unwrap_or("a broker without a name");
        match &self.version {
            Some(version) => format!("{product} {version}"),
            None => product.to_owned(),
        }
    }

    /// Whether it is a RabbitMQ of this major version or a later one.
    pub(crate) fn is_rabbitmq_from(&self, major: u32) -> bool {
        let version = self.version.as_deref().and_then(|version| version.split('.').next()?.parse().ok());
        self.product.as_deref() == Some("RabbitMQ") && version.is_some_and(|version: u32| version >= major)
    }

    fn read(payload: &[u8]) -> io::Result<Self> {
        match parse_class(payload) {
            Ok((_, AMQPClass::Connection(AMQPMethod::Start(start)))) => Ok(Self {
                product: text(&start.server_properties, "product"),
                version: text(&start.server_properties, "version"),
                cluster: text(&start.server_properties, "cluster_name"),
                mechanisms: start.mechanisms.to_string(),
            }),
            _ => Err(no_amqp("its first frame is not connection.start")),
        }
    }
}

/// What a TLS handshake came to.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    /// Such as `TLSv1_3`.
    pub(crate) version: String,
    /// Whom the broker's certificate is for.
    pub(crate) subject: String,
    /// Whole days until it expires.
    pub(crate) days_left: i64,
}

/// Does something with the hosts of the URL, one after the other, until it succeeds with one; each has its share of
/// `limit`.
///
/// # Errors
/// What it came to with the last one; [`io::ErrorKind::TimedOut`] if its share was too short.
pub(crate) async fn with_any_host<T>(
    endpoint: &Endpoint,
    limit: Duration,
    work: impl AsyncFn(&Endpoint) -> io::Result<T>,
) -> io::Result<T> {
    let hosts: Vec<_> = endpoint.each().collect();
    let mut result = Err(io::ErrorKind::NotConnected.into());
    for host in &hosts {
        let share = limit / hosts.len() as u32;
        result = timeout(share, work(host)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if result.is_ok() {
            break;
        }
    }
    result
}

impl Tls {
    /// What the handshake on `stream` came to; `None` without TLS. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// If the broker showed no certificate, or one that cannot be read.
    pub(crate) fn of(stream: &Stream, now: i64) -> io::Result<Option<Self>> {
        let Some(session) = stream.tls_session() else { return Ok(None) };
        let certificate = session
            .peer_certificates()
            .and_then(|chain| chain.first())
            .ok_or_else(|| io::Error::other("the broker showed no certificate"))?;
        let (_, certificate) = X509Certificate::from_der(certificate)
            .map_err(|error| io::Error::other(format!("the broker's certificate cannot be read: {error}")))?;
        Ok(Some(Self {
            version: session.protocol_version().map_or_else(String::new, |version| format!("{version:?}")),
            subject: certificate.subject().to_string(),
            days_left: (certificate.validity().not_after.timestamp() - now).div_euclid(DAY),
        }))
    }
}

/// Says hello and reads the broker's answer.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] for a peer that is no AMQP 0-9-1 broker.
pub(crate) async fn ask(mut stream: Stream) -> io::Result<Broker> {
    stream.write_all(HEADER).await?;
    stream.flush().await?;
    let mut head = [0; 7];
    stream.read_exact(&mut head).await?;
    let [kind, channel @ .., a, b, c, d] = head;
    let size = u32::from_be_bytes([a, b, c, d]);
    if &head[..4] == b"AMQP" {
        return Err(no_amqp("it speaks another version of AMQP"));
    }
    // An alert of TLS.
    if kind == 21 {
        return Err(no_amqp("it wants TLS, so write amqps:// in --url"));
    }
    if kind != 1 || channel != [0, 0] || size > LONGEST {
        return Err(no_amqp("it answers with something else"));
    }
    // The frame's end is one byte more.
    let mut payload = vec![0; size as usize + 1];
    stream.read_exact(&mut payload).await?;
    Broker::read(&payload)
}

fn no_amqp(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, format!("the peer does not speak AMQP 0-9-1: {why}"))
}

fn text(properties: &FieldTable, name: &str) -> Option<String> {
    match properties.inner().get(name)? {
        AMQPValue::LongString(text) => Some(text.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// What comes of a peer that answers with these bytes.
    async fn answer(bytes: Vec<u8>) -> io::Result<Broker> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("amqp://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let peer = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut header = [0; 8];
            stream.read_exact(&mut header).unwrap();
            assert_eq!(header, HEADER);
            stream.write_all(&bytes).unwrap();
        });
        let stream = Endpoint::parse(&url).unwrap().connect().await?;
        assert!(Tls::of(&stream, 0)?.is_none());
        let broker = ask(stream).await;
        peer.join().unwrap();
        broker
    }

    /// A `connection.start` with these server properties, encoded.
    fn start(properties: &[u8]) -> Vec<u8> {
        let mut method = vec![0, 10, 0, 10, 0, 9];
        method.extend((properties.len() as u32).to_be_bytes());
        method.extend(properties);
        method.extend(b"\0\0\0\x0ePLAIN AMQPLAIN\0\0\0\x05en_US");
        let mut frame = vec![1, 0, 0];
        frame.extend((method.len() as u32).to_be_bytes());
        frame.extend(method);
        frame.push(0xce);
        frame
    }

    #[tokio::test]
    async fn product_and_version_are_read_and_other_properties_are_passed_over() {
        let properties = b"\x07productS\0\0\0\x07LavinMQ\x04flagt\x01\x07versionS\0\0\0\x052.9.0";
        let broker = answer(start(properties)).await.unwrap();
        assert_eq!(broker.title(), "LavinMQ 2.9.0");
        assert_eq!(broker.mechanisms, "PLAIN AMQPLAIN");
        assert_eq!(broker.cluster, None);
        assert!(!broker.is_rabbitmq_from(2));
    }

    #[tokio::test]
    async fn a_broker_may_say_nothing_about_itself() {
        assert_eq!(answer(start(b"")).await.unwrap().title(), "a broker without a name");
    }

    #[tokio::test]
    async fn other_peers_are_told_from_brokers() {
        for (bytes, words) in [
            (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "something else"),
            (b"AMQP\x03\x01\x00\x00".to_vec(), "another version"),
            (b"\x15\x03\x03\0\x02\x02\x46".to_vec(), "write amqps://"),
            (b"\x01\0\0\xff\xff\xff\xff".to_vec(), "something else"),
            (b"\x01\0\0\0\0\0\x04\0\x0a\0\x0b\xce".to_vec(), "not connection.start"),
        ] {
            let error = answer(bytes).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        let cut = answer(start(b"")[..20].to_vec()).await.unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
    }
}
