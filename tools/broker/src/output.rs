//! What a node wrote to its standard output, made fit for an error message.

use std::fs;
use std::str::Chars;

use crate::place::Place;

/// Lines that an error shows.
const LINES: usize = 20;

/// RabbitMQ writes this between the reason of a failed start and a long report of the processes that crashed
/// with it.
const FAILED: &str = "BOOT FAILED";

/// What RabbitMQ writes of a listener's port that another process has, and of that of the distribution.
const TAKEN: [&str; 2] = ["eaddrinuse", "distribution port"];

/// The lines that tell best why a node did not start: those around the first [`FAILED`], else the last ones.
pub(crate) fn tail(place: &Place) -> String {
    select(&written(place))
}

/// Whether the node wrote that one of `ports` was taken.
pub(crate) fn tells_of_a_taken_port(place: &Place, ports: &[u16]) -> bool {
    written(place).lines().any(|line| names_a_taken_port(line, ports))
}

fn written(place: &Place) -> String {
    let output = fs::read(place.file("output")).unwrap_or_default();
    String::from_utf8_lossy(&output).into_owned()
}

fn names_a_taken_port(line: &str, ports: &[u16]) -> bool {
    let mut numbers = line.split(|character: char| !character.is_ascii_digit()).flat_map(str::parse);
    TAKEN.iter().any(|taken| line.contains(taken)) && numbers.any(|number: u16| ports.contains(&number))
}

fn select(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(plain).filter(|line| !line.is_empty()).collect();
    let first = match lines.iter().position(|line| line.contains(FAILED)) {
        Some(failed) => failed.saturating_sub(LINES / 2),
        None => lines.len().saturating_sub(LINES),
    };
    lines[first..].iter().take(LINES).map(String::as_str).collect::<Vec<_>>().join("\n")
}

/// A line without colours, window titles and the prompts of the Erlang shell.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => match characters.next() {
                // A title ends with a bell, a colour with a letter.
                Some(']') => skip(&mut characters, |end| end == '\x07'),
                _ => skip(&mut characters, |end| end.is_ascii_alphabetic()),
            },
            '\r' => (),
            _ => plain.push(character),
        }
    }
    plain.strip_prefix("1> ").unwrap_or(&plain).trim_end().to_owned()
}

fn skip(characters: &mut Chars<'_>, to: impl Fn(char) -> bool) {
    characters.find(|&character| to(character));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_of_a_failed_start_is_kept() {
        let before: String = (0..50).map(|n| format!("1> before {n}\n")).collect();
        let after: String = (0..50).map(|n| format!("after {n}\r\n")).collect();
        let text = select(&format!(
            "{before}\x1b]2;title\x07the reason\n\n\x1b[1m\x1b[38;2;1;2;3mBOOT FAILED\x1b[0m\n{after}"
        ));
        assert_eq!(text.lines().count(), 20);
        assert!(text.starts_with("before 41\n"), "{text}");
        assert!(text.contains("\nthe reason\nBOOT FAILED\nafter 0\n"), "{text}");
    }

    #[test]
    fn a_taken_port_is_told_from_a_number_and_from_another_failure() {
        let listener = r#"{could_not_start_listener,"127.0.0.1",20002,eaddrinuse}"#;
        assert!(names_a_taken_port(listener, &[20_001, 20_002]));
        assert!(!names_a_taken_port(listener, &[2000, 2, 20_001]));
        assert!(names_a_taken_port("ERROR: distribution port 20001 in use on host localhost", &[20_001]));
        assert!(!names_a_taken_port("started TCP listener on 127.0.0.1:20002", &[20_002]));
    }

    #[test]
    fn else_the_end_is_kept() {
        let text: String = (0..50).map(|n| format!("line {n}\n")).collect();
        assert!(select(&text).starts_with("line 30\n") && select(&text).ends_with("\nline 49"));
        assert_eq!(select(""), "");
    }
}
