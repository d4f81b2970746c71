//! What the pages take from elsewhere: pieces of source files.

use std::fs;
use std::path::Path;

use crate::excerpt;
use crate::page::{Block, Page};
use crate::play::Problem;

/// Puts the pieces of source files into a page; returns what it took out or could not find, so that nothing returned
/// means that all was as it is in the source.
pub fn update_excerpts(root: &Path, page: &mut Page) -> Vec<Problem> {
    let mut problems = Vec::new();
    for block in page.blocks().into_iter().rev().filter(|block| block.language() == "rust") {
        match excerpt(root, page, &block) {
            Err(text) => problems.push(Problem { place: page.place(block.start), text }),
            Ok(lines) if lines == page.content(&block) => {}
            Ok(lines) => {
                let text = format!("{} is otherwise in the source (cargo xtask docs --update)", block.info);
                problems.push(Problem { place: page.place(block.start), text });
                page.lines.splice(block.start..block.end, lines);
            }
        }
    }
    problems.reverse();
    problems
}

fn excerpt(root: &Path, page: &Page, block: &Block) -> Result<Vec<String>, String> {
    let source = block.info.split_once(' ').and_then(|(_, source)| source.split_once('#'));
    let (file, item) = source.ok_or("code is taken from a source file: ```rust FILE#ITEM")?;
    let path = root.join(page.path.with_file_name(file));
    let text = fs::read_to_string(&path).map_err(|error| format!("{file}: {error}"))?;
    excerpt::find(&text, item).map_err(|why| format!("{file}#{item}: {why}"))
}
