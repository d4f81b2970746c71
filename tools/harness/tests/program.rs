//! Programs are started, read, signalled and gone, each wait with a deadline.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::time::{Duration, Instant};

use harness::{Program, Running, Stream};

const SOON: Duration = Duration::from_secs(10);

fn shell(script: &str) -> Program {
    Program::new("sh").args(["-c", script]).deadline(SOON)
}

/// The text of the panic that this ends with.
fn panic_text<T>(f: impl FnOnce() -> T) -> String {
    let payload = catch_unwind(AssertUnwindSafe(f)).map(drop).expect_err("it must panic");
    payload.downcast_ref::<String>().expect("a formatted message").clone()
}

/// A process that is there and not only waits to be reaped.
fn is_alive(pid: &str) -> bool {
    // Small images of Linux have no ps.
    let state = if cfg!(target_os = "linux") {
        fs::read_to_string(format!("/proc/{pid}/stat"))
            .unwrap_or_default()
            .rsplit_once(") ")
            .map(|(_, s)| s.into())
    } else {
        let ps = Command::new("ps").args(["-o", "stat=", "-p", pid]).output().expect("ps runs");
        Some(String::from_utf8_lossy(&ps.stdout).into_owned())
    };
    state.is_some_and(|state: String| !state.is_empty() && !state.starts_with('Z'))
}

/// The kernel needs a moment after a kill; there is nothing to wait on for somebody else's child.
fn dies(pid: &str) -> bool {
    let deadline = Instant::now() + SOON;
    while Instant::now() < deadline {
        if !is_alive(pid) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Starts a program that ignores polite signals and has a child; returns the child's process id, too.
fn stubborn_family() -> (Running, String) {
    let mut family = shell("trap '' INT TERM; sleep 600 & echo $!; wait").start();
    let grandchild = family.wait_for_line(|_| true);
    (family, grandchild)
}

#[test]
fn a_one_shot_program_is_captured_to_its_end() {
    let end = shell("echo one; echo two >&2; printf three; exit 7").run();
    assert_eq!(end.code, Some(7));
    assert_eq!(end.signal, None);
    assert_eq!(end.stdout, ["one", "three"]);
    assert_eq!(end.stderr, ["two"]);
    assert!(end.elapsed < SOON);
}

#[test]
fn the_wrong_exit_code_is_told_with_all_lines() {
    let text = panic_text(|| shell("echo out; echo err >&2; exit 7").run().expect_code(0));
    for part in ["expected exit code 0", "exit status: 7", "> out", "> err"] {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    shell("exit 7").run().expect_code(7);
}

#[test]
fn lines_are_taken_one_by_one() {
    let mut program = shell("echo first; echo second; echo other; echo third; echo >&2 trouble").start();
    program.expect_line("first");
    assert_eq!(program.wait_for_line(|line| line.starts_with('t')), "third");
    assert_eq!(program.wait_for_error_line(|line| line.contains("rou")), "trouble");
    assert_eq!(program.wait(SOON).stdout, ["first", "second", "other", "third"]);
    assert_eq!(program.stdout().len(), 4);
    assert_eq!(program.stderr(), ["trouble"]);
}

#[test]
fn a_different_line_fails_at_once_and_shows_everything() {
    let mut program = shell("echo hi; echo ho; echo oh >&2").deadline(Duration::from_secs(600)).start();
    program.wait(SOON);
    program.wait_for_error_line(|line| line == "oh");
    let text = panic_text(|| program.expect_line("ho"));
    for part in
        ["sh -c", r#"expected the line "ho" on stdout, got "hi""#, "  hi\n> ho\n", "  oh\n", "exit status: 0"]
    {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

#[test]
fn a_missing_line_fails_at_the_deadline() {
    let mut program = shell("echo hi; sleep 600").deadline(Duration::from_secs(2)).start();
    let text = panic_text(|| program.wait_for_line(|line| line == "ho"));
    assert!(text.contains("waited 2s on stdout for a line") && text.contains("  hi\n"), "{text}");
}

#[test]
fn a_program_that_ended_is_not_waited_for() {
    let mut program = shell("echo sorry >&2; exit 3").deadline(Duration::from_secs(600)).start();
    let text = panic_text(|| program.expect_line("ready"));
    assert!(
        text.contains("stdout ended") && text.contains("exit status: 3") && text.contains("> sorry"),
        "{text}"
    );
}

#[test]
fn a_program_that_does_not_end_fails_at_the_deadline() {
    let mut program = shell("sleep 600").start();
    let text = panic_text(|| program.wait(Duration::from_millis(100)));
    assert!(text.contains("waited 100ms for its end"), "{text}");
    let text = panic_text(|| shell("sleep 600").deadline(Duration::from_millis(100)).run());
    assert!(text.contains("waited 100ms for its end"), "{text}");
}

#[test]
fn a_program_that_cannot_be_started_says_so() {
    let text = Program::new("/nowhere/to/be/found").arg("a b").try_start().map(drop).unwrap_err().to_string();
    assert!(text.starts_with(r#"found "a b": cannot be started: "#), "{text}");
}

#[test]
fn signals_arrive() {
    let ready = "echo ready; while :; do sleep 0.05; done";
    let mut program = shell(&format!("trap 'echo int; exit 5' INT; {ready}")).start();
    program.expect_line("ready");
    program.interrupt();
    program.expect_line("int");
    assert_eq!(program.wait(SOON).code, Some(5));

    let mut program = shell(&format!("trap 'exit 6' TERM; {ready}")).start();
    program.expect_line("ready");
    program.terminate();
    assert_eq!(program.wait(SOON).code, Some(6));

    let mut program = shell(ready).start();
    program.expect_line("ready");
    program.kill();
    let end = program.wait(SOON);
    assert_eq!((end.code, end.signal), (None, Some(9)));
    let text = panic_text(|| program.interrupt());
    assert!(text.contains("SIGINT cannot be sent"), "{text}");
}

#[test]
fn a_paused_program_does_nothing_until_it_is_resumed() {
    let mut program = shell("trap 'exit 4' TERM; echo ready; while :; do sleep 0.05; done").start();
    program.expect_line("ready");
    program.pause();
    program.terminate();
    assert!(program.try_wait(Duration::from_millis(300)).is_err());
    program.resume();
    assert_eq!(program.wait(SOON).code, Some(4));
}

#[test]
fn dropping_kills_the_whole_family() {
    let (family, grandchild) = stubborn_family();
    let pid = family.pid().to_string();
    assert!(is_alive(&pid) && is_alive(&grandchild));
    drop(family);
    assert!(!is_alive(&pid));
    assert!(dies(&grandchild));
}

#[test]
fn dropping_kills_a_child_that_outlived_its_parent() {
    let mut program = shell("sleep 600 & echo $!").start();
    let orphan = program.wait_for_line(|_| true);
    let deadline = Instant::now() + SOON;
    while is_alive(&program.pid().to_string()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(is_alive(&orphan));
    drop(program);
    assert!(dies(&orphan));
}

/// The family dies with a starter that gets no chance to clean up: this test runs itself once more as
/// that starter.
#[test]
fn the_family_does_not_outlive_a_killed_starter() {
    const ROLE: &str = "HARNESS_TEST_STARTER";
    if std::env::var_os(ROLE).is_some() {
        let (family, grandchild) = stubborn_family();
        println!("\nfamily {} {grandchild}", family.pid());
        std::thread::sleep(Duration::from_secs(600));
    }
    let mut starter = Program::new(std::env::current_exe().expect("this test has a path"))
        .args(["--exact", "--nocapture", "the_family_does_not_outlive_a_killed_starter"])
        .env(ROLE, "1")
        .start();
    let line = starter.wait_for_line(|line| line.starts_with("family "));
    let pids: Vec<_> = line.split(' ').skip(1).collect();
    assert!(pids.iter().all(|pid| is_alive(pid)));
    starter.kill();
    starter.wait(SOON);
    assert!(pids.iter().all(|pid| dies(pid)));
}

#[test]
fn standard_input_is_empty_unless_given() {
    assert!(Program::new("cat").run().expect_code(0).stdout.is_empty());
    let file = fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/program.rs")).expect("this file");
    assert!(Program::new("cat").stdin(file).run().stdout[0].starts_with("//! "));
}

#[test]
fn the_environment_is_the_one_that_was_given() {
    const ROLE: &str = "HARNESS_TEST_ENVIRONMENT";
    if std::env::var_os(ROLE).is_some() {
        let print =
            r#"echo "url=$AMQP_URL prefix=$AMQP_PREFIX log=$RUST_LOG role=$HARNESS_TEST_ENVIRONMENT""#;
        let end = shell(print).env("RUST_LOG", "mine").env_remove(ROLE).run();
        assert_eq!(end.stdout, ["url= prefix= log=mine role="]);
        return;
    }
    Program::new(std::env::current_exe().expect("this test has a path"))
        .args(["--exact", "the_environment_is_the_one_that_was_given"])
        .env("AMQP_URL", "amqp://elsewhere")
        .env("AMQP_PREFIX", "other-")
        .env("RUST_LOG", "trace")
        .env(ROLE, "1")
        .run()
        .expect_code(0);
}

#[test]
fn an_observer_sees_each_line_before_the_one_who_waits() {
    let (sender, receiver) = std::sync::mpsc::channel();
    let mut program = shell("echo out; echo err >&2")
        .on_line(move |stream, line| sender.send((stream, line.to_owned())).expect("the test still listens"))
        .start();
    program.expect_line("out");
    program.wait_for_error_line(|line| line == "err");
    let mut seen: Vec<_> = receiver.try_iter().collect();
    seen.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
    assert_eq!(seen, [(Stream::Stdout, "out".into()), (Stream::Stderr, "err".into())]);
}

#[test]
fn bytes_that_are_no_text_do_no_harm() {
    let end = shell(r"printf 'a\377b\r\n\nlast'").run();
    assert_eq!(end.stdout, ["a\u{fffd}b\r", "", "last"]);
}

#[cfg(target_os = "linux")]
#[test]
fn threads_are_counted() {
    let program = shell("sleep 600").start();
    assert_eq!(program.threads(), 1);
}
