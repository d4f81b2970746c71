//! The versions of RabbitMQ, and where each comes from.

use anyhow::{Context, Result};

/// A RabbitMQ to run everything against.
#[derive(Debug, PartialEq)]
pub(crate) struct Version {
    /// What it is called on the command line.
    pub(crate) name: &'static str,
    /// The release of Debian that has it.
    pub(crate) suite: &'static str,
    /// The same in words.
    pub(crate) system: &'static str,
    /// Lines for `rabbitmq.conf`.
    pub(crate) config: &'static [&'static str],
}

/// What RabbitMQ 4.3 refuses as it comes from its makers; Debian's permits it.
const STRICT: &[&str] = &["deprecated_features.permit.transient_nonexcl_queues = false"];

/// All of them. Debian's testing release moves on: the broker says what it is.
pub(crate) const ALL: &[Version] = &[
    Version { name: "3.8.9", suite: "bullseye", system: "Debian 11", config: &[] },
    Version { name: "3.10.8", suite: "bookworm", system: "Debian 12", config: &[] },
    Version { name: "4.0.5", suite: "trixie", system: "Debian 13", config: &[] },
    Version { name: "4.3.6", suite: "testing", system: "Debian testing", config: &[] },
    Version { name: "4.3.6-strict", suite: "testing", system: "Debian testing", config: STRICT },
];

impl Version {
    /// The head of its column, when the broker says that it is `found`.
    pub(crate) fn title(&self, found: &str) -> String {
        if self.config.is_empty() { found.to_owned() } else { format!("{found}, strict") }
    }
}

/// Those of these names, or all.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Version>> {
    if names.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let find = |name: &String| {
        ALL.iter().find(|version| version.name == name).with_context(|| {
            let known: Vec<_> = ALL.iter().map(|version| version.name).collect();
            format!("there is no version {name} here: there are {}", known.join(", "))
        })
    };
    names.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_chosen_by_name_and_unknown_ones_are_told() {
        let names = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            choose(&names).map(|chosen| chosen.iter().map(|version| version.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), ALL.len());
        assert_eq!(names(&["4.3.6-strict", "3.8.9"]).unwrap(), ["4.3.6-strict", "3.8.9"]);
        let error = names(&["4.3.6", "3.7"]).unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no version 3.7 here: there are 3.8.9, 3.10.8, 4.0.5, 4.3.6, 4.3.6-strict"
        );
    }

    #[test]
    fn the_broker_says_what_it_is() {
        assert_eq!(ALL[0].title("3.8.9"), "3.8.9");
        assert_eq!(ALL[4].title("4.4.0"), "4.4.0, strict");
    }
}
