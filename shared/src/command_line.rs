//! Reading a command line without showing a password that stands in the wrong place.

use std::env::args_os;
use std::io::{self, Write};
use std::process::exit;

use clap::Parser;

/// What [`Parser::parse`] does, except that a URL's password is left out of its messages: a forgotten
/// `--url` in front of it would have it shown.
#[must_use]
pub fn parse<A: Parser>() -> A {
    A::try_parse().unwrap_or_else(|error| {
        print_usage(&error);
        exit(error.exit_code())
    })
}

/// Prints what clap has to say about this process's command line, as [`parse`] does.
pub fn print_usage(error: &clap::Error) {
    let words: Vec<_> = args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let text = error.render().to_string();
    let shown = without_passwords(&text, &words);
    // Nothing can be done if it cannot be written.
    let _ = if shown == text { error.print() } else { write!(io::stderr(), "{shown}") };
}

/// `text` without the users and passwords of the URLs among the `words` of a command line.
fn without_passwords(text: &str, words: &[String]) -> String {
    words.iter().fold(text.to_owned(), |text, word| match (word.find("://"), word.rfind('@')) {
        (Some(scheme), Some(host)) if scheme < host => {
            text.replace(word, &format!("{}://…{}", &word[..scheme], &word[host..]))
        }
        _ => text,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_urls_user_and_password_are_left_out_and_nothing_else() {
        let words = ["sender", "amqp://u:sec@ret@host/v", "--file=a@b", "http://host"].map(str::to_owned);
        let text = "unexpected argument 'amqp://u:sec@ret@host/v' or '--file=a@b' or 'http://host'\n";
        let shown = "unexpected argument 'amqp://…@host/v' or '--file=a@b' or 'http://host'\n";
        assert_eq!(without_passwords(text, &words), shown);
    }
}
