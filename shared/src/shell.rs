//! Names as words of a command that somebody pastes.

/// `text` as one word of a shell's command line, in quotation marks where a shell would see more in it.
///
/// Queues, vhosts and users may have any name, and a broker's error carries names that others chose.
#[must_use]
pub fn shell_word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./:@%+,".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_the_name_again() {
        for text in ["/", "shop", "größe", "a b", "it's", "$(echo x); `echo y` \"*\" \\", "", "~", "#", "-p"]
        {
            let echo = format!("printf %s {}", shell_word(text));
            let output = Command::new("sh").args(["-c", &echo]).output().unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), text, "{echo}");
        }
    }

    #[test]
    fn usual_names_stay_as_they_are() {
        for text in ["/", "casillas.1", "my-vhost", "user@example", "größe"] {
            assert_eq!(shell_word(text), text);
        }
    }
}
