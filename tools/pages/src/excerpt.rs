//! Finds the piece of a source file that a page shows.

/// The lines of an item (`fn`, `struct`, `const` and so on), without its comments and attributes, or those between
/// `// begin NAME` and `// end NAME`, moved to the margin.
pub(crate) fn find(source: &str, name: &str) -> Result<Vec<String>, String> {
    let lines: Vec<_> = source.lines().collect();
    let is = |line: &str, mark: &str| line.trim().strip_prefix(mark).is_some_and(|rest| rest.trim() == name);
    if let Some(begin) = lines.iter().position(|line| is(line, "// begin ")) {
        let end = lines.iter().position(|line| is(line, "// end "));
        let end = end.filter(|end| *end > begin).ok_or_else(|| format!("there is no `// end {name}`"))?;
        return Ok(to_the_margin(&lines[begin + 1..end]));
    }
    let mut found = lines.iter().enumerate().filter(|(_, line)| declares(line, name));
    let (start, line) = found.next().ok_or_else(|| format!("there is no item and no `// begin {name}`"))?;
    if found.next().is_some() {
        return Err(format!("there are several items {name}"));
    }
    let indent = &line[..line.len() - line.trim_start().len()];
    let ends = |line: &str| {
        line.strip_prefix(indent)
            .is_some_and(|rest| rest.starts_with(['}', ']', ')']) && !rest.ends_with('{'))
    };
    let end = if line.ends_with([';', '}']) {
        start
    } else {
        lines[start + 1..]
            .iter()
            .position(|line| ends(line))
            .map(|at| start + 1 + at)
            .ok_or("it has no end")?
    };
    Ok(to_the_margin(&lines[start..=end]))
}

/// Whether the line begins the item of this name.
fn declares(line: &str, name: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    let Some(at) =
        words.iter().position(|word| ["fn", "struct", "enum", "const", "static", "type"].contains(word))
    else {
        return false;
    };
    let before = words[..at].iter().all(|word| word.starts_with("pub") || ["async", "const"].contains(word));
    let is_it = words.get(at + 1).and_then(|word| word.strip_prefix(name));
    before && is_it.is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}

fn to_the_margin(lines: &[&str]) -> Vec<String> {
    let full = lines.iter().filter(|line| !line.trim().is_empty());
    let indent = full.map(|line| line.len() - line.trim_start().len()).min().unwrap_or_default();
    lines.iter().map(|line| line.get(indent..).unwrap_or_default().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = r#"
/// A queue.
pub const QUEUE: &str = "hello";

/// Sends.
pub async fn send(
    channel: &Channel,
) -> Result<()> {
    if x {
        y();
    }
}

impl A {
    fn inner(&self) {
        // begin middle
        one();

        if two {
        }
        // end middle
    }
    fn sender(&self) {}
}
"#;

    #[test]
    fn items_and_marked_pieces_are_found() {
        assert_eq!(find(SOURCE, "QUEUE").unwrap(), [r#"pub const QUEUE: &str = "hello";"#]);
        let send = find(SOURCE, "send").unwrap();
        assert_eq!((send.len(), send[0].as_str(), send[6].as_str()), (7, "pub async fn send(", "}"));
        assert_eq!(find(SOURCE, "middle").unwrap(), ["one();", "", "if two {", "}"]);
        assert_eq!(find(SOURCE, "inner").unwrap()[0], "fn inner(&self) {");
        assert!(find(SOURCE, "other").is_err());
    }
}
