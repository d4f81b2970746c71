//! What the demo shows: one entry a pattern crate. A new pattern is a new entry here and nothing else.

/// Programs of one package that exchange messages.
pub(crate) struct Exchange {
    /// The package, which is also the exchange's name.
    pub(crate) package: &'static str,
    /// What there is to see, in a few words.
    pub(crate) title: &'static str,
    /// Started first, one after another, each once the one before it is ready. They run until Ctrl-C.
    pub(crate) consumers: &'static [Consumer],
    /// Run next, one after another, each to its end.
    pub(crate) producers: &'static [Producer],
    /// The queues that stay on the broker afterwards.
    pub(crate) queues: &'static [&'static str],
    /// The exchanges, in AMQP's sense, that stay on the broker afterwards.
    pub(crate) exchanges: &'static [&'static str],
}

/// A program that waits for messages.
pub(crate) struct Consumer {
    /// The program's name.
    pub(crate) program: &'static str,
    /// Its arguments.
    pub(crate) args: &'static [&'static str],
    /// The line by which it says that it waits.
    pub(crate) ready: &'static str,
    /// The lines that follow, in order, and no others.
    pub(crate) then: &'static [&'static str],
}

/// A program that sends, and ends.
pub(crate) struct Producer {
    /// The program's name.
    pub(crate) program: &'static str,
    /// Its arguments.
    pub(crate) args: &'static [&'static str],
    /// Its lines, in order, and no others.
    pub(crate) prints: &'static [&'static str],
}

/// All of them, in the order of the demo. The last line of the last producer is the demo's last line.
pub(crate) const ALL: &[Exchange] = &[
    Exchange {
        package: "hello",
        title: "one sender, one queue, one receiver",
        consumers: &[Consumer {
            program: "receiver",
            args: &[],
            ready: " [*] Waiting for messages. To exit press CTRL+C",
            then: &["Received a message: Hello World!"],
        }],
        producers: &[Producer { program: "sender", args: &[], prints: &[" [x] Sent Hello World!"] }],
        queues: &["hello"],
        exchanges: &[],
    },
    Exchange {
        package: "rpc",
        title: "a request, and the reply that belongs to it",
        consumers: &[Consumer {
            program: "rpc_server",
            args: &[],
            ready: " [*] Awaiting RPC requests",
            then: &[" [.] fib(30)"],
        }],
        producers: &[Producer {
            program: "rpc_client",
            args: &["30"],
            prints: &[" [x] Requesting fib(30)", " [.] Got 832040"],
        }],
        queues: &["rpc_queue"],
        exchanges: &[],
    },
];
