//! Finds the `rabbitmq-server` script of an installed RabbitMQ.

use std::env;
use std::ffi::OsStr;
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Where packages put the script that runs as any user. Debian, Ubuntu and the RPMs share the first one.
const PLACES: &[&str] = &[
    "/usr/lib/rabbitmq/bin/rabbitmq-server",
    "/opt/homebrew/opt/rabbitmq/sbin/rabbitmq-server",
    "/opt/homebrew/sbin/rabbitmq-server",
    "/usr/local/opt/rabbitmq/sbin/rabbitmq-server",
    "/usr/local/sbin/rabbitmq-server",
    "/home/linuxbrew/.linuxbrew/opt/rabbitmq/sbin/rabbitmq-server",
];

/// The ways to a broker, told to whoever has none.
const HELP: &str = "\
no rabbitmq-server found; one of these gives you a broker:
  apt-get install --no-install-recommends rabbitmq-server   (Debian, Ubuntu; found by itself afterwards)
  brew install rabbitmq                                     (macOS; found by itself afterwards)
  export RABBITMQ_SERVER=/path/to/sbin/rabbitmq-server      (an unpacked release)
  docker compose up -d --wait                               (for the programs; tests need an installed one)";

/// The variable that names a folder with another Linux system, whose RabbitMQ is to be run.
pub const ROOT: &str = "BROKER_ROOT";

/// A `rabbitmq-server` script. Displayed as its path on this machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// The folder with another Linux system in which it is run, if it is not this machine's own.
    pub(crate) root: Option<PathBuf>,
    /// Its path as seen from there.
    pub(crate) program: PathBuf,
}

impl Server {
    /// Where the file `path` of its system is on this machine.
    pub(crate) fn here(&self, path: &Path) -> PathBuf {
        match &self.root {
            Some(root) => root.join(path.strip_prefix("/").unwrap_or(path)),
            None => path.to_owned(),
        }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.here(&self.program).display().fmt(f)
    }
}

/// An installed `rabbitmq-server`.
///
/// [`ROOT`] decides if it is set, then `RABBITMQ_SERVER`; then come the places that distributions use, then
/// `PATH`. The error lists the ways to install one.
pub fn find_server() -> Result<Server> {
    if let Some(root) = env::var_os(ROOT).filter(|root| !root.is_empty()) {
        return find_in(Path::new(&root)).context(ROOT);
    }
    let program = find(env::var_os("RABBITMQ_SERVER").as_deref(), PLACES, env::var_os("PATH").as_deref())?;
    Ok(Server { root: None, program })
}

/// The `rabbitmq-server` in a folder with another Linux system.
pub(crate) fn find_in(root: &Path) -> Result<Server> {
    let root = root.canonicalize().with_context(|| format!("cannot use {}", root.display()))?;
    for place in PLACES {
        let server = Server { root: Some(root.clone()), program: place.into() };
        // Of the metadata of the file itself: if it is a link, it leads to somewhere in that folder.
        if fs::symlink_metadata(server.here(&server.program)).is_ok() {
            return Ok(server);
        }
    }
    bail!("no RabbitMQ in {}: there is no {}", root.display(), PLACES[0])
}

fn find(explicit: Option<&OsStr>, places: &[&str], path: Option<&OsStr>) -> Result<PathBuf> {
    if let Some(server) = explicit.filter(|server| !server.is_empty()) {
        let server = PathBuf::from(server);
        if !is_program(&server) {
            bail!("RABBITMQ_SERVER is {}, which is not a program\n{HELP}", server.display());
        }
        return Ok(server);
    }
    let on_path = path.into_iter().flat_map(env::split_paths).filter(|folder| folder.is_absolute());
    places
        .iter()
        .map(PathBuf::from)
        .chain(on_path.map(|folder| folder.join("rabbitmq-server")))
        .find(|server| is_program(server) && !is_wrapper(server))
        .ok_or_else(|| anyhow::anyhow!(HELP))
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// `/usr/sbin/rabbitmq-server` of Debian and of the RPMs changes the user to `rabbitmq` and refuses everybody
/// else: it is of no use for a private node.
fn is_wrapper(file: &Path) -> bool {
    let mut text = Vec::new();
    let read = File::open(file).and_then(|file| file.take(16 * 1024).read_to_end(&mut text));
    read.is_err() || String::from_utf8_lossy(&text).contains("Only root or rabbitmq")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(folder: &Path, text: &str) -> PathBuf {
        let file = folder.join("rabbitmq-server");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        file
    }

    #[test]
    fn nothing_installed_lists_the_ways_to_get_one() {
        for error in [
            find(None, &["/nowhere/rabbitmq-server"], None).unwrap_err().to_string(),
            find(None, &[], Some(OsStr::new("/nowhere:"))).unwrap_err().to_string(),
        ] {
            assert!(error.contains("apt-get install --no-install-recommends rabbitmq-server"), "{error}");
            assert!(error.contains("brew install rabbitmq"), "{error}");
            assert!(error.contains("docker compose up -d --wait"), "{error}");
        }
    }

    #[test]
    fn a_wrong_variable_is_named_and_not_passed_over() {
        let folder = tempfile::tempdir().unwrap();
        let installed = program(folder.path(), "#!/bin/sh\n");
        let error =
            find(Some(OsStr::new("/nowhere/server")), &[installed.to_str().unwrap()], None).unwrap_err();
        assert!(error.to_string().starts_with("RABBITMQ_SERVER is /nowhere/server"), "{error}");
        assert!(error.to_string().contains("apt-get install"), "{error}");
    }

    #[test]
    fn the_variable_then_the_places_then_the_path() {
        let [first, second, third] = [(), (), ()].map(|()| tempfile::tempdir().unwrap());
        let [explicit, place, path] =
            [&first, &second, &third].map(|folder| program(folder.path(), "#!/bin/sh\n"));
        let places = [place.to_str().unwrap()];
        let folders = Some(third.path().as_os_str());
        assert_eq!(find(Some(explicit.as_os_str()), &places, folders).unwrap(), explicit);
        assert_eq!(find(None, &places, folders).unwrap(), place);
        assert_eq!(find(Some(OsStr::new("")), &[], folders).unwrap(), path);
    }

    #[test]
    fn a_folder_with_another_system_is_searched_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let error = find_in(folder.path()).unwrap_err().to_string();
        let root = folder.path().canonicalize().unwrap();
        assert_eq!(
            error,
            format!("no RabbitMQ in {}: there is no /usr/lib/rabbitmq/bin/rabbitmq-server", root.display())
        );
        let bin = root.join("usr/lib/rabbitmq/bin");
        fs::create_dir_all(&bin).unwrap();
        // A link into that system, which leads nowhere on this one.
        std::os::unix::fs::symlink("/nowhere/rabbitmq-server", bin.join("rabbitmq-server")).unwrap();
        let server = find_in(folder.path()).unwrap();
        assert_eq!(server.program, Path::new("/usr/lib/rabbitmq/bin/rabbitmq-server"));
        assert_eq!(server.to_string(), bin.join("rabbitmq-server").display().to_string());
        let error = format!("{:#}", find_in(Path::new("/nowhere/debian")).unwrap_err());
        assert!(error.starts_with("cannot use /nowhere/debian: No such file"), "{error}");
    }

    #[test]
    fn the_wrapper_that_changes_users_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        program(folder.path(), "#!/bin/sh\necho \"Only root or rabbitmq should run ${SCRIPT}\"\n");
        assert!(find(None, &[], Some(folder.path().as_os_str())).is_err());
    }
}
