//! Where a node lives: its ports, its directory, and the environment of everything that is run for it.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::find::Server;
use crate::ports::Block;
use crate::root;

/// Appended to the caller's `PATH`, which may be empty.
const FOLDERS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/homebrew/bin";

/// Keeps the distribution port, of the node and of each tool, off the other interfaces.
const LOOPBACK: &str = "-kernel inet_dist_use_interface {127,0,0,1}";

/// Lets the server's threads wait for each other a few microseconds before they sleep, which RabbitMQ switches
/// off. Waking a thread is slow on a virtual machine, and a start wakes them for each of its thousand files: it
/// takes half as long so.
const SHORT_NAPS: &str = "+sbwt very_short +sbwtdcpu very_short +sbwtdio very_short";

/// What a node listens with, besides the name service and the distribution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listeners {
    /// AMQP without TLS.
    pub(crate) plain: bool,
    /// AMQP with TLS.
    pub(crate) tls: bool,
    /// The management plugin.
    pub(crate) management: bool,
}

/// Everything that has to be known about a node to run it or to talk to it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) server: Server,
    pub(crate) directory: PathBuf,
    pub(crate) name: String,
    pub(crate) ports: Block,
    pub(crate) listeners: Listeners,
    path: String,
}

impl Place {
    pub(crate) fn new(server: &Server, directory: &Path, ports: Block, listeners: Listeners) -> Place {
        let path = match env::var("PATH") {
            Ok(path) if !path.is_empty() => format!("{path}:{FOLDERS}"),
            _ => FOLDERS.to_owned(),
        };
        Place {
            server: server.clone(),
            directory: directory.to_owned(),
            // `localhost` and not the name of the machine, which need not resolve.
            name: format!("t{}@localhost", ports.epmd),
            ports,
            listeners,
            path,
        }
    }

    /// The file or folder `name` in the directory of the node.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// One of the tools that come with the server, such as `rabbitmqctl`.
    pub(crate) fn tool(&self, name: &str) -> PathBuf {
        let program = &self.server.program;
        let beside = program.with_file_name(name);
        match program.canonicalize() {
            Ok(real) if self.server.root.is_none() && !beside.exists() => real.with_file_name(name),
            _ => beside,
        }
    }

    /// A command with nothing inherited from the caller's environment: a stray `RABBITMQ_…` or `ERL_…`
    /// variable would lead to another node.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = match self.entrance() {
            Some(entrance) => {
                let mut command = Command::new(&entrance[0]);
                command.args(&entrance[1..]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.env_clear().envs(self.tool_variables()).current_dir(&self.directory);
        command
    }

    /// What a command begins with that is to be run in the system of the server, if that is another one.
    pub(crate) fn entrance(&self) -> Option<Vec<OsString>> {
        self.server.root.as_deref().map(|root| root::entrance(root, &self.directory))
    }

    /// What everything that is run for this node has in its environment.
    fn tool_variables(&self) -> Vec<(&'static str, OsString)> {
        let mut variables = self.address();
        variables.extend([
            ("PATH", self.path.clone().into()),
            // The default leaves room for eleven tools at a time on a machine.
            ("RABBITMQ_CTL_DIST_PORT_MIN", "35672".into()),
            ("RABBITMQ_CTL_DIST_PORT_MAX", "36671".into()),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
            ("ERL_CRASH_DUMP_BYTES", "0".into()),
        ]);
        variables
    }

    /// What `rabbitmqctl` needs, apart from a `PATH`, to find this node and no other.
    fn address(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LANG", "C.UTF-8".into()),
            // The cookie is made there.
            ("HOME", self.directory.clone().into()),
            ("ERL_EPMD_PORT", self.ports.epmd.to_string().into()),
            ("RABBITMQ_NODENAME", self.name.clone().into()),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
            ("RABBITMQ_CTL_ERL_ARGS", LOOPBACK.into()),
        ]
    }

    /// What the server needs on top of that.
    pub(crate) fn server_variables(&self) -> Vec<(&'static str, OsString)> {
        let file = |name| OsString::from(self.file(name));
        let mut variables = vec![
            ("RABBITMQ_DIST_PORT", self.ports.distribution.to_string().into()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", format!("{LOOPBACK} {SHORT_NAPS}").into()),
            ("RABBITMQ_MNESIA_BASE", file("data")),
            ("RABBITMQ_LOG_BASE", file("log")),
            ("RABBITMQ_PID_FILE", file("pid")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", file("enabled_plugins")),
            // Without its extension, which the server adds.
            ("RABBITMQ_CONFIG_FILE", file("rabbitmq")),
            // Else the files of /etc/rabbitmq/conf.d are read as well.
            ("RABBITMQ_CONFIG_FILES", file("conf.d")),
            ("RABBITMQ_ADVANCED_CONFIG_FILE", file("advanced.config")),
            // Makes the script `exec` the virtual machine, which then ends when its input does: with this
            // program.
            ("RABBITMQ_ALLOW_INPUT", "1".into()),
        ];
        if self.listeners.plain {
            variables.extend([
                ("RABBITMQ_NODE_PORT", self.ports.amqp.to_string().into()),
                ("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1".into()),
            ]);
        }
        variables
    }

    /// A line for a shell that runs `rabbitmqctl` against this node, up to where its arguments go.
    pub(crate) fn rabbitmqctl_line(&self) -> String {
        let mut line = String::from(r#"env -i PATH="$PATH""#);
        for (name, value) in self.address() {
            line.push_str(&format!(" {name}={}", quoted(&value.to_string_lossy())));
        }
        let mut words = self.entrance().unwrap_or_default();
        words.push(self.tool("rabbitmqctl").into());
        for word in words {
            line.push(' ');
            line.push_str(&quoted(&word.to_string_lossy()));
        }
        line
    }

    /// As one line of JSON, for another process.
    pub(crate) fn describe(&self) -> String {
        json!({
            "root": self.server.root.as_deref().map(Path::to_string_lossy),
            "server": self.server.program.to_string_lossy(),
            "directory": self.directory.to_string_lossy(),
            "name": self.name,
            "path": self.path,
            "epmd": self.ports.epmd,
            "distribution": self.ports.distribution,
            "amqp": self.ports.amqp,
            "management": self.ports.management,
            "tls": self.ports.tls,
            "plain_listener": self.listeners.plain,
            "tls_listener": self.listeners.tls,
            "management_plugin": self.listeners.management,
        })
        .to_string()
    }

    /// From what [`Place::describe`] said in another process.
    pub(crate) fn from_description(text: &str) -> Result<Place> {
        let value: Value = serde_json::from_str(text).context("not JSON")?;
        ensure!(value.is_object(), "not a JSON object");
        let string =
            |key: &str| value[key].as_str().map(str::to_owned).with_context(|| format!("no text \"{key}\""));
        let port = |key: &str| {
            value[key]
                .as_u64()
                .and_then(|port| u16::try_from(port).ok())
                .with_context(|| format!("no port \"{key}\""))
        };
        let flag = |key: &str| value[key].as_bool().with_context(|| format!("no flag \"{key}\""));
        Ok(Place {
            server: Server {
                root: value["root"].as_str().map(PathBuf::from),
                program: string("server")?.into(),
            },
            directory: string("directory")?.into(),
            name: string("name")?,
            path: string("path")?,
            ports: Block {
                epmd: port("epmd")?,
                distribution: port("distribution")?,
                amqp: port("amqp")?,
                management: port("management")?,
                tls: port("tls")?,
            },
            listeners: Listeners {
                plain: flag("plain_listener")?,
                tls: flag("tls_listener")?,
                management: flag("management_plugin")?,
            },
        })
    }
}

/// `text` as one word of a shell's command line.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:@=+,".contains(&byte);
    if !text.is_empty() && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_survives_the_way() {
        let ports = Block { epmd: 1, distribution: 2, amqp: 3, management: 4, tls: 5 };
        let listeners = Listeners { plain: true, tls: false, management: true };
        for root in [None, Some("/another system".into())] {
            let server = Server { root, program: "/a b/rabbitmq-server".into() };
            let place = Place::new(&server, Path::new("/tmp/ä"), ports, listeners);
            let copy = Place::from_description(&place.describe()).unwrap();
            assert_eq!(copy.tool_variables(), place.tool_variables());
            assert_eq!(copy.server_variables(), place.server_variables());
            assert_eq!(copy.rabbitmqctl_line(), place.rabbitmqctl_line());
        }
    }

    #[test]
    fn a_wrong_description_says_what_is_missing() {
        assert_eq!(Place::from_description("5672").unwrap_err().to_string(), "not a JSON object");
        assert_eq!(Place::from_description("{}").unwrap_err().to_string(), "no text \"server\"");
    }

    #[test]
    fn words_of_a_shell() {
        assert_eq!(quoted("/a-b/c.d"), "/a-b/c.d");
        assert_eq!(quoted("-kernel {1}"), "'-kernel {1}'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }
}
