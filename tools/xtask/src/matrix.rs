//! `cargo xtask matrix`: everything against every RabbitMQ that this workspace claims to work with.

mod debian;
mod record;
mod suite;
mod table;
mod version;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result};
use broker::Node;

use self::record::Record;
use self::suite::{Server, Suite};
use self::version::Version;
use crate::say::say;
use crate::{install, page, workspace};

/// The page that claims support.
pub(crate) const PAGE: &str = "docs/versions.md";

/// Where records of the runs are kept, and what the tests printed.
const FOLDER: &str = "target/matrix";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this version (may be given several times), such as 4.3.6
    #[arg(long, value_name = "VERSION")]
    only: Vec<String>,

    /// Only this crate (may be given several times); its cells replace those of the last run
    #[arg(long = "crate", value_name = "CRATE")]
    crates: Vec<String>,

    /// Install debootstrap if it is missing (apt-get)
    #[arg(long)]
    install: bool,

    /// Where Debian's packages come from, instead of apt's own sources
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
}

/// Runs what is asked for, prints the table, and writes it into the page as soon as every version has its column.
pub(crate) fn matrix(args: &Args) -> Result<ExitCode> {
    workspace::enter()?;
    let versions = version::choose(&args.only)?;
    if args.install {
        install::debootstrap()?;
    }
    for version in &versions {
        debian::provide(version.suite, args.mirror.as_deref())?;
    }
    let suite = Suite::build(&args.crates)?;
    let folder = Path::new(FOLDER);
    let mut records = Vec::new();
    for version in versions {
        let mut record = run(&suite, version, &folder.join(version.name))?;
        if !args.crates.is_empty()
            && let Some(last) = Record::find(folder, version)?
        {
            record = record.over(last);
        }
        record.write(folder, version)?;
        records.push(record);
    }
    say!("\n{}", table::table(&records));
    match record::read_all(folder)? {
        Ok(all) => {
            page::write(PAGE, "matrix", &table::table(&all))?;
            say!("matrix: the table is in {PAGE}");
        }
        Err(missing) => say!("matrix: {PAGE} stays as it is, because there was no run of {missing} yet"),
    }
    let green = records.iter().all(Record::is_green);
    Ok(if green { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// All cells of one version. What its tests print goes to `folder`.
fn run(suite: &Suite, version: &Version, folder: &Path) -> Result<Record> {
    let root = debian::folder(version.suite).canonicalize()?;
    say!("\n{}: a private node of {}", version.name, root.display());
    let started = Instant::now();
    let server = Server { root: &root, config: version.config };
    let mut builder = Node::builder().root(&root);
    for line in version.config {
        builder = builder.config(line);
    }
    let node = builder.start().with_context(|| format!("RabbitMQ {} does not start", version.name))?;
    let found = node.version()?;
    if !version.name.starts_with(&found) {
        say!("  {} has RabbitMQ {found} by now", version.suite);
    }
    let cells = suite.run(&server, &node, folder)?;
    Ok(Record {
        title: version.title(&found),
        system: version.system.to_owned(),
        date: table::date(SystemTime::now()),
        seconds: started.elapsed().as_secs(),
        cells,
    })
}
