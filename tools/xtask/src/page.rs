//! Tables in pages that a command writes: each stands between two marks.

use std::fs;

use anyhow::{Context, Result};

/// Puts `table` into the file `page`, between `<!-- NAME:begin -->` and `<!-- NAME:end -->`.
pub(crate) fn write(page: &str, name: &str, table: &str) -> Result<()> {
    let text = fs::read_to_string(page).with_context(|| format!("cannot read {page}"))?;
    let text = with_table(&text, name, table).with_context(|| format!("cannot write into {page}"))?;
    fs::write(page, text).with_context(|| format!("cannot write {page}"))
}

fn with_table(text: &str, name: &str, table: &str) -> Result<String> {
    let [begin, end] = ["begin", "end"].map(|which| format!("<!-- {name}:{which} -->"));
    let marks = || format!("it needs the marks {begin} and {end}");
    let (head, rest) = text.split_once(&begin).with_context(marks)?;
    let (_, tail) = rest.split_once(&end).with_context(marks)?;
    Ok(format!("{head}{begin}\n{table}\n{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_stands_between_its_marks_and_nothing_else_changes() {
        let page = "# Page\n<!-- t:begin -->\nold\n<!-- t:end -->\nend\n";
        let expected = "# Page\n<!-- t:begin -->\nnew\n<!-- t:end -->\nend\n";
        assert_eq!(with_table(page, "t", "new").unwrap(), expected);
        let error = with_table(page, "other", "new").unwrap_err().to_string();
        assert_eq!(error, "it needs the marks <!-- other:begin --> and <!-- other:end -->");
    }

    #[test]
    fn every_table_has_its_marks() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        for (page, name) in [(crate::faults::PAGE, "faults"), (crate::matrix::PAGE, "matrix")] {
            let text = fs::read_to_string(root.join(page)).unwrap();
            with_table(&text, name, "").unwrap();
        }
    }
}
