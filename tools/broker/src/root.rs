//! Runs commands in a folder that holds another Linux system.
//!
//! Everything is mounted in a namespace of the command's own: it goes when the command ends, however it ends,
//! and nobody else sees it, least of all a program that deletes the folder.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use crate::place::Place;

/// Makes the processes, the names and one directory of this machine visible in the folder `$0`, and goes there. One
/// line, because people paste it.
const SCRIPT: &str = concat!(
    r#"set -e; root=$0 directory=$1 base=${1%/*}; shift; "#,
    r#"mkdir -p "$root$base"; [ -e "$root/etc/hosts" ] || : >"$root/etc/hosts"; "#,
    r#"mount --rbind /proc "$root/proc"; mount --rbind "$base" "$root$base"; "#,
    r#"mount --bind /etc/hosts "$root/etc/hosts"; "#,
    r#"exec chroot "$root" env -C "$directory" "$@""#,
);

/// What the command line begins with of a command that is to be run in the system in `root`, where the parent of
/// `directory` has the same path as here. Each step replaces the one before it, so that the process id stays.
pub(crate) fn entrance(root: &Path, directory: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["unshare".into(), "--mount".into()];
    if !nix::unistd::geteuid().is_root() {
        words.push("--map-root-user".into());
    }
    words.extend(["sh".into(), "-c".into(), SCRIPT.into(), root.into(), directory.into()]);
    words
}

/// Tries the entrance, if there is one: what is run behind it could only say that it ended.
pub(crate) fn check(place: &Place) -> Result<()> {
    let Some(root) = &place.server.root else {
        return Ok(());
    };
    let output = place.command("true").stdin(Stdio::null()).output().context("cannot run unshare")?;
    ensure!(
        output.status.success(),
        "cannot run anything in {}, which takes root, or a kernel that lets other users make namespaces: {}",
        root.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
