//! The text of a message from the words of a command line.

/// The words with a space between them; `hello` if there are none or the first is empty, as in the other
/// languages' programs.
#[must_use]
pub fn text(words: &[String]) -> String {
    match words {
        [first, ..] if !first.is_empty() => words.join(" "),
        _ => "hello".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_one_text_and_an_empty_first_one_means_hello() {
        for (words, expected) in [
            (&[][..], "hello"),
            (&[""], "hello"),
            (&["", "x"], "hello"),
            (&["a", "b"], "a b"),
            (&["a", ""], "a "),
            (&["a  b", "c"], "a  b c"),
        ] {
            let words: Vec<_> = words.iter().map(ToString::to_string).collect();
            assert_eq!(text(&words), expected, "{words:?}");
        }
    }
}
