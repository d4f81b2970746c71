//! What the demo shows: one entry a pattern crate. A new pattern is a new entry here and nothing else.

/// An argument that is replaced by the address of the management API. What needs it is played on a private
/// node only: somebody else's broker is not to be reconfigured for a demo.
pub(crate) const MANAGEMENT: &str = "MANAGEMENT";

/// Programs that exchange messages.
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
    /// Its arguments; [`MANAGEMENT`] stands for the address of the management API.
    pub(crate) args: &'static [&'static str],
    /// The line by which it says that it waits. What it prints before may name what the broker made up.
    pub(crate) ready: &'static str,
    /// The lines that follow, in order, and no others; `[..]` stands for any text.
    pub(crate) then: &'static [&'static str],
    /// The lines that it prints once it is stopped.
    pub(crate) end: &'static [&'static str],
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
            end: &[],
        }],
        producers: &[Producer { program: "sender", args: &[], prints: &[" [x] Sent Hello World!"] }],
        queues: &["hello"],
        exchanges: &[],
    },
    Exchange {
        package: "work-queues",
        title: "tasks shared out among workers",
        consumers: &[Consumer {
            program: "worker",
            args: &[],
            ready: " [*] Waiting for messages. To exit press CTRL+C",
            then: &["Received a message: hello", "Done", "Received a message: world.", "Done"],
            end: &[],
        }],
        producers: &[
            Producer { program: "task", args: &[], prints: &[" [x] Sent hello"] },
            Producer { program: "task", args: &["world."], prints: &[" [x] Sent world."] },
        ],
        queues: &["task_queue"],
        exchanges: &[],
    },
    Exchange {
        package: "pubsub-fanout",
        title: "a copy of every message for every receiver",
        consumers: &[RECEIVE_LOGS, RECEIVE_LOGS],
        producers: &[Producer {
            program: "emit_log",
            args: &["info:", "all", "is", "well"],
            prints: &[" [x] Sent info: all is well"],
        }],
        queues: &[],
        exchanges: &["logs"],
    },
    Exchange {
        package: "routing-direct",
        title: "messages chosen by an exact key; nobody chose the errors",
        consumers: &[Consumer {
            program: "receive_logs_direct",
            args: &["info", "warn"],
            ready: " [*] Waiting for logs. To exit press CTRL+C",
            then: &[" [x] a warning", " [x] a info"],
            end: &[],
        }],
        producers: &[
            Producer {
                program: "emit_log_direct",
                args: &["warn", "a", "warning"],
                prints: &[" [x] Sent a warning"],
            },
            Producer {
                program: "emit_log_direct",
                args: &["error", "a", "error"],
                prints: &[" [x] Sent a error"],
            },
            Producer {
                program: "emit_log_direct",
                args: &["info", "a", "info"],
                prints: &[" [x] Sent a info"],
            },
        ],
        queues: &[],
        exchanges: &["logs_direct"],
    },
    Exchange {
        package: "topics",
        title: "messages chosen by a pattern of words; one copy where two patterns match",
        consumers: &[Consumer {
            program: "receive_logs_topic",
            args: &["kern.*", "*.critical"],
            ready: " [*] Waiting for logs. To exit press CTRL+C",
            then: &[" [x] A critical kernel error", " [x] A disk is full"],
            end: &[],
        }],
        producers: &[
            Producer {
                program: "emit_log_topic",
                args: &["kern.critical", "A", "critical", "kernel", "error"],
                prints: &[" [x] Sent A critical kernel error"],
            },
            Producer {
                program: "emit_log_topic",
                args: &["kern", "unmatched"],
                prints: &[" [x] Sent unmatched"],
            },
            Producer {
                program: "emit_log_topic",
                args: &["disk.critical", "A", "disk", "is", "full"],
                prints: &[" [x] Sent A disk is full"],
            },
        ],
        queues: &[],
        exchanges: &["logs_topic"],
    },
    Exchange {
        package: "delayed-dlx",
        title: "a message that comes back when its time is up, through a dead-letter exchange",
        consumers: &[Consumer {
            program: "delay_consumer",
            args: &[],
            ready: " [*] Waiting for unpaid orders. To exit press CTRL+C",
            then: &[
                " [x] order 1 was not paid: cancelled, its stock put back",
                "     asked for 300 ms, came after [..] ms",
                "     x-death: [..]",
            ],
            end: &[],
        }],
        producers: &[Producer {
            program: "delay_producer",
            args: &["--delay", "300ms"],
            prints: &[" [x] Sent order 1, to be paid within 300ms"],
        }],
        queues: &["orders.wait.300ms", "orders.unpaid"],
        exchanges: &["orders.dlx"],
    },
    Exchange {
        package: "queue-lifecycle",
        title: "a queue with priorities, and one without",
        consumers: &[],
        producers: &[Producer {
            program: "priorities",
            args: &[],
            prints: &[
                " [x] Send, one after the other: zero five none nine five-again 200",
                " [x] Receive from a queue with x-max-priority 9: nine 200 five five-again zero none",
                " [x] Receive from a queue with no such argument: zero five none nine five-again 200",
            ],
        }],
        queues: &[],
        exchanges: &[],
    },
    Exchange {
        package: "transactions",
        title: "nothing is seen before the commit, everything after",
        consumers: &[],
        producers: &[Producer {
            program: "tx_publish",
            args: &[],
            prints: &[
                " [.] In the queues at the start: invoices 0, orders 1",
                " [x] In one transaction: took the order, published 3 invoices, acknowledged the order",
                " [.] In the queues before the commit: invoices 0, orders 0",
                " [x] Committed",
                " [.] In the queues after the commit: invoices 3, orders 0",
                " [.] Received 3 of 3 invoices, none twice",
            ],
        }],
        queues: &[],
        exchanges: &[],
    },
    Exchange {
        package: "firehose",
        title: "a trace of what the sender of hello sends",
        consumers: &[Consumer {
            program: "trace_tail",
            args: &["--exchange", "", "--enable", "--management-url", MANAGEMENT],
            ready: " [*] Waiting for traces. To exit press CTRL+C",
            then: &[
                "",
                "================================================================================",
                "[..]: Message published",
                "",
                "Node:         [..]",
                "Connection:   [..] -> [..]",
                "Virtual host: /",
                "User:         guest",
                "Channel:      1",
                "Exchange:     ",
                "Routing keys: [<<\"hello\">>]",
                "Routed queues: [<<\"hello\">>]",
                "Properties:   [..]<<\"text/plain\">>[..]",
                "Payload: ",
                "Hello World!",
            ],
            end: &[],
        }],
        producers: &[Producer { program: "sender", args: &[], prints: &[" [x] Sent Hello World!"] }],
        queues: &["hello"],
        exchanges: &[],
    },
    Exchange {
        package: "striker-keeper",
        title: "a producer and a consumer that count what they send and get",
        consumers: &[Consumer {
            program: "keeper",
            args: &[],
            ready: "running keeper ...",
            then: &[
                "[1] casillas consumed: morientes 1",
                "[1] casillas consumed: morientes 2",
                "[1] casillas consumed: morientes 3",
            ],
            end: &[
                " [.] keeper: 3 received, 3 acked, 0 redelivered; 3 distinct, 0 duplicates, 0 missing; 0 reconnects, longest outage 0s",
            ],
        }],
        producers: &[Producer {
            program: "striker",
            args: &["--count", "3", "--rate", "0"],
            prints: &[
                "running striker ...",
                " [x] morientes 1 (confirmed)",
                " [x] morientes 2 (confirmed)",
                " [x] morientes 3 (confirmed)",
                " [.] striker: 3 sent: 3 confirmed, 0 returned, 0 nacked, 0 not sent, 0 unknown, 0 unconfirmed; \
                 0 re-sent; 0 reconnects, longest outage 0s",
            ],
        }],
        queues: &["casillas"],
        exchanges: &["penalty"],
    },
    Exchange {
        package: "rpc",
        title: "a request, and the reply that belongs to it",
        consumers: &[Consumer {
            program: "rpc_server",
            args: &[],
            ready: " [*] Awaiting RPC requests",
            then: &[" [.] fib(30)"],
            end: &[],
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

const RECEIVE_LOGS: Consumer = Consumer {
    program: "receive_logs",
    args: &[],
    ready: " [*] Waiting for logs. To exit press CTRL+C",
    then: &[" [x] info: all is well"],
    end: &[],
};

impl Exchange {
    /// Whether it needs the management API.
    pub(crate) fn needs_management(&self) -> bool {
        self.consumers.iter().any(|consumer| consumer.args.contains(&MANAGEMENT))
    }
}
