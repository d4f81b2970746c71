//! A page: its text, its headings and its fenced blocks.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::checks::PLAYED_ELSEWHERE;

/// A Markdown file.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where it is, from the workspace's root.
    pub path: PathBuf,
    /// Its lines.
    pub lines: Vec<String>,
}

/// A fenced block. Lines are counted from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What stands behind the opening fence: the language and what the engine has to know.
    pub info: String,
    /// The first line within.
    pub start: usize,
    /// The closing fence.
    pub end: usize,
}

impl Block {
    /// The language: the first word of the info.
    pub fn language(&self) -> &str {
        self.info.split(' ').next().unwrap_or_default()
    }
}

/// What a page is made of, as far as the engine cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    /// A heading of any level.
    Heading,
    /// A fenced block.
    Block(Block),
}

impl Page {
    /// A page of this text.
    pub fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        Self { path: path.into(), lines: text.lines().map(str::to_owned).collect() }
    }

    /// Reads a page; `path` is relative to the workspace's root.
    pub fn read(root: &Path, path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        let text = fs::read_to_string(root.join(&path)).with_context(|| path.display().to_string())?;
        Ok(Self::new(path, &text))
    }

    /// Writes it where it was read, if it has changed since; whether it had.
    pub fn write(&self, root: &Path) -> Result<bool> {
        let file = root.join(&self.path);
        let text = self.lines.join("\n") + "\n";
        if fs::read_to_string(&file).is_ok_and(|old| old == text) {
            return Ok(false);
        }
        fs::write(&file, text).with_context(|| self.path.display().to_string())?;
        Ok(true)
    }

    /// Its fenced blocks.
    pub fn blocks(&self) -> Vec<Block> {
        let elements = self.elements().into_iter();
        elements
            .filter_map(|element| if let Element::Block(block) = element { Some(block) } else { None })
            .collect()
    }

    /// The lines of a block.
    pub fn content(&self, block: &Block) -> &[String] {
        &self.lines[block.start..block.end]
    }

    pub(crate) fn elements(&self) -> Vec<Element> {
        let (mut elements, mut open) = (Vec::new(), None::<(String, Block)>);
        for (number, line) in self.lines.iter().enumerate() {
            match &mut open {
                Some((fence, block)) => {
                    if line.trim_end() == fence {
                        block.end = number;
                        elements.push(Element::Block(block.clone()));
                        open = None;
                    }
                }
                None => {
                    let ticks = line.len() - line.trim_start_matches('`').len();
                    if ticks >= 3 {
                        let (fence, info) = line.split_at(ticks);
                        let block =
                            Block { info: info.trim().to_owned(), start: number + 1, end: number + 1 };
                        open = Some((fence.to_owned(), block));
                    } else if is_heading(line) {
                        elements.push(Element::Heading);
                    }
                }
            }
        }
        // An unclosed block ends with the page.
        if let Some((_, mut block)) = open {
            block.end = self.lines.len();
            elements.push(Element::Block(block));
        }
        elements
    }

    /// A place in the page, for a person: lines are counted from 1 there.
    pub(crate) fn place(&self, line: usize) -> String {
        format!("{}:{}", self.path.display(), line + 1)
    }

    /// Whether it says in another language what another page says in English.
    pub(crate) fn is_translation(&self) -> bool {
        self.path.to_string_lossy().ends_with(".zh-CN.md")
    }
}

fn is_heading(line: &str) -> bool {
    let text = line.trim_start_matches('#');
    (1..=6).contains(&(line.len() - text.len())) && text.starts_with(' ')
}

/// All pages of the workspace, by path, but for those that a test of their own plays.
pub fn all(root: &Path) -> Result<Vec<Page>> {
    let (mut paths, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).with_context(|| folder.display().to_string())? {
            let (entry, kind) = entry.and_then(|entry| entry.file_type().map(|kind| (entry, kind)))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() && !name.starts_with('.') && !["target", "node_modules"].contains(&&*name) {
                folders.push(folder.join(name));
            } else if name.ends_with(".md") {
                paths.push(folder.join(name));
            }
        }
    }
    let elsewhere = |path: &PathBuf| PLAYED_ELSEWHERE.iter().any(|(page, _)| path == Path::new(page));
    paths.retain(|path| !elsewhere(path));
    paths.sort();
    paths.into_iter().map(|path| Page::read(root, path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_and_blocks_are_found_in_their_order() {
        let page = Page::new(
            "a.md",
            "# A\n```console &\n# no heading\n```\n#no\n## B\n````text\n```\n````\n```rust\nx",
        );
        let block = |info: &str, start, end| Element::Block(Block { info: info.to_owned(), start, end });
        let expected = [
            Element::Heading,
            block("console &", 2, 3),
            Element::Heading,
            block("text", 7, 8),
            block("rust", 10, 11),
        ];
        assert_eq!(page.elements(), expected);
        assert_eq!(page.blocks()[0].language(), "console");
    }
}
