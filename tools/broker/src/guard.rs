//! The directory of a node, and the process that removes it when this program can no longer do so.

use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::wait;

/// What the name of every directory begins with; the process id of the owner and a random part follow.
const PREFIX: &str = "rabbitmq-tutorials-";

/// Length of the random part.
const RANDOM: usize = 6;

/// Remembers the last line of its input: process groups to kill. When the input ends, however this program
/// ended, it kills them, the paused ones too, and removes the directory. A process that this program ended itself
/// is not in that line any more: its id may belong to another one.
const SCRIPT: &str = r#"
groups=
while read -r line; do groups=$line; done
for group in $groups; do kill -s KILL -- "-$group"; done
tries=0
while rm -rf -- "$0"; [ -e "$0" ] && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done
"#;

/// The directory of a node and its watcher. Dropping it removes the directory.
#[derive(Debug)]
pub(crate) struct Guard {
    directory: PathBuf,
    watcher: Child,
    input: Option<ChildStdin>,
}

impl Guard {
    /// Makes a directory for this user only and starts its watcher.
    pub(crate) fn new() -> Result<Guard> {
        let base = env::temp_dir();
        let directory = tempfile::Builder::new()
            .prefix(&format!("{PREFIX}{}-", std::process::id()))
            .rand_bytes(RANDOM)
            .tempdir_in(&base)
            .with_context(|| format!("cannot make a directory in {}", base.display()))?;
        // The path goes into configuration files, which are text.
        directory.path().to_str().with_context(|| format!("{} is not UTF-8", base.display()))?;
        let mut watcher = Command::new("sh")
            .args(["-c", SCRIPT])
            .arg(directory.path())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in a terminal goes to the whole process group; the watcher has to outlive this program.
            .process_group(0)
            .spawn()
            .context("cannot start sh")?;
        let input = watcher.stdin.take();
        Ok(Guard { directory: directory.keep(), watcher, input })
    }

    /// The directory.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Says which processes (each the leader of its group) are to be killed should this program end: these
    /// and no others.
    pub(crate) fn watch(&mut self, leaders: &[u32]) -> Result<()> {
        let mut line = leaders.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
        line.push('\n');
        let input = self.input.as_mut().context("the watcher is gone")?;
        input.write_all(line.as_bytes()).context("the watcher of the node is gone")
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.watch(&[]);
        self.input = None;
        let ended =
            wait::until(Duration::from_secs(15), "the directory to go", || Ok(self.watcher.try_wait()?));
        if ended.is_err() {
            let _ = self.watcher.kill();
            let _ = self.watcher.wait();
        }
        // Nothing to do unless somebody killed the watcher.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Removes directories whose owner and watcher were killed both (a power cut, say). Never an error: it is a
/// courtesy.
pub(crate) fn remove_stale(own: &Path) {
    let Some((base, owner)) = own.parent().zip(fs::symlink_metadata(own).ok()) else {
        return;
    };
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        let stale = entry.file_name().to_str().and_then(owner_of).is_some_and(is_gone);
        // A directory, not a link to one, and of the same user.
        let ours = fs::symlink_metadata(entry.path())
            .is_ok_and(|found| found.is_dir() && found.uid() == owner.uid());
        if stale && ours {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The process id in the name of a directory, if it is exactly a name that [`Guard::new`] gives.
fn owner_of(name: &str) -> Option<i32> {
    let (pid, random) = name.strip_prefix(PREFIX)?.split_once('-')?;
    let exact = random.len() == RANDOM
        && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && pid.bytes().all(|byte| byte.is_ascii_digit());
    pid.parse().ok().filter(|&pid| exact && pid > 0)
}

fn is_gone(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_names_are_ours() {
        assert_eq!(owner_of("rabbitmq-tutorials-123-aB3dE6"), Some(123));
        for name in [
            "rabbitmq-tutorials-123-aB3dE6x",
            "rabbitmq-tutorials-123-aB3d.6",
            "rabbitmq-tutorials-+12-aB3dE6",
            "rabbitmq-tutorials-0-aB3dE6",
            "rabbitmq-tutorials--aB3dE6",
            "rabbitmq-tutorials-123",
            "rabbitmq-tutorials",
            "x-rabbitmq-tutorials-123-aB3dE6",
        ] {
            assert_eq!(owner_of(name), None, "{name}");
        }
    }

    #[test]
    fn stale_directories_go_and_others_stay() {
        let base = tempfile::tempdir().unwrap();
        let mut gone = Command::new("true").spawn().unwrap();
        gone.wait().unwrap();
        let [own, dead, link, other] = [
            format!("{PREFIX}{}-aaaaaa", std::process::id()),
            format!("{PREFIX}{}-bbbbbb", gone.id()),
            format!("{PREFIX}{}-cccccc", gone.id()),
            format!("{PREFIX}{}", gone.id()),
        ]
        .map(|name| base.path().join(name));
        for directory in [&own, &dead, &other] {
            fs::create_dir(directory).unwrap();
        }
        std::os::unix::fs::symlink(&other, &link).unwrap();
        remove_stale(&own);
        assert!(own.exists() && other.exists() && link.is_symlink());
        assert!(!dead.exists());
    }

    #[test]
    fn the_watcher_kills_and_removes_when_its_input_ends() {
        let mut guard = Guard::new().unwrap();
        let directory = guard.directory().to_owned();
        fs::write(directory.join("file"), "").unwrap();
        let mut sleeper = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        guard.watch(&[sleeper.id()]).unwrap();
        // As if this process had been killed.
        guard.input = None;
        guard.watcher.wait().unwrap();
        assert!(!directory.exists());
        assert!(!sleeper.wait().unwrap().success());
    }
}
