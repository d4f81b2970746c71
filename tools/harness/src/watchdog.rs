//! Ends a program whose starter is gone, however it went.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A process group does not die with its starter: Ctrl-C or `kill -9` on a test run would leave the
/// programs behind. This is a shell that waits for the end of its input, which comes when the starter
/// is gone, and then kills the group. It has a group of its own so that Ctrl-C leaves it alive for that.
pub(crate) struct Watchdog(Child);

impl Watchdog {
    pub(crate) fn over(group: u32) -> std::io::Result<Self> {
        Command::new("/bin/sh")
            .args(["-c", r#"read -r _; kill -s KILL -- "-$0""#, &group.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map(Self)
    }
}

impl Drop for Watchdog {
    /// Whoever drops it has taken care of the group, so the shell must die before its input ends.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
