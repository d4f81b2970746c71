//! Pages in another language: their commands, outputs, code, pictures, names and links are those of the English ones.

use std::path::PathBuf;

use crate::page::Page;
use crate::play::Problem;

/// Each translated page with the one that it translates.
pub fn translations(pages: &[Page]) -> Vec<(&Page, Option<&Page>)> {
    let original = |page: &Page| {
        let path = PathBuf::from(page.path.to_string_lossy().replace(".zh-CN.md", ".md"));
        pages.iter().find(|page| page.path == path)
    };
    pages.iter().filter(|page| page.is_translation()).map(|page| (page, original(page))).collect()
}

/// Gives a translation the blocks of its original, and what a program wrote into it, and says what else is not the same: links, and the code in tables.
/// Pictures keep their own words: only their kind is compared.
pub fn follow(translation: &mut Page, original: &Page) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (theirs, ours) = (original.blocks(), translation.blocks());
    let place = translation.path.display().to_string();
    let infos = |blocks: &[crate::Block]| blocks.iter().map(|block| block.info.clone()).collect::<Vec<_>>();
    if infos(&theirs) != infos(&ours) {
        let text = format!("its blocks are not those of {}", original.path.display());
        problems.push(Problem { place: place.clone(), text });
    } else {
        for (theirs, ours) in theirs.iter().zip(&ours).rev() {
            let content = original.content(theirs);
            if ours.language() != "mermaid" && translation.content(ours) != content {
                let text = format!("the block is not that of {}", original.place(theirs.start));
                problems.push(Problem { place: translation.place(ours.start), text });
                translation.lines.splice(ours.start..ours.end, content.to_vec());
            }
        }
    }
    for (start, end) in generated(translation) {
        let name = translation.lines[start].clone();
        let region = generated(original).into_iter().find(|(start, _)| original.lines[*start] == name);
        if let Some((from, to)) = region
            && original.lines[from..to] != translation.lines[start..end]
        {
            let text = format!("the block {name} is not that of {}", original.place(from));
            problems.push(Problem { place: translation.place(start), text });
            translation.lines.splice(start..end, original.lines[from..to].to_vec());
        }
    }
    for (what, theirs, ours) in [
        ("the links", links(original), links(translation)),
        ("the code in the tables", tables(original), tables(translation)),
    ] {
        if theirs != ours {
            let missing: Vec<_> = theirs.iter().filter(|item| !ours.contains(item)).collect();
            let added: Vec<_> = ours.iter().filter(|item| !theirs.contains(item)).collect();
            let text = format!("{what} are not those of the original: missing {missing:?}, added {added:?}");
            problems.push(Problem { place: place.clone(), text });
        }
    }
    problems
}

/// What a program has written between `<!-- NAME:begin -->` and `<!-- NAME:end -->`, the last first.
fn generated(page: &Page) -> Vec<(usize, usize)> {
    let mark =
        |line: &String, word: &str| line.starts_with("<!-- ") && line.ends_with(&format!(":{word} -->"));
    let starts = (0..page.lines.len()).rev().filter(|number| mark(&page.lines[*number], "begin"));
    let end = |start: usize| (start..page.lines.len()).find(|number| mark(&page.lines[*number], "end"));
    starts.filter_map(|start| Some((start, end(start)?))).collect()
}

/// The lines outside of blocks.
fn prose(page: &Page) -> impl Iterator<Item = &String> {
    let blocks = page.blocks();
    let inside = move |number: usize| blocks.iter().any(|block| (block.start..block.end).contains(&number));
    page.lines.iter().enumerate().filter(move |(number, _)| !inside(*number)).map(|(_, line)| line)
}

/// The targets of all links, sorted, without anchors, which are in the page's language; a translated page counts as
/// its original.
fn links(page: &Page) -> Vec<String> {
    let targets = prose(page).flat_map(|line| {
        line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target.to_owned())
    });
    let bare = targets.map(|target| target.split('#').next().unwrap_or_default().replace(".zh-CN.md", ".md"));
    // A folder is shown by its page.
    let mut links: Vec<_> = bare.map(|target| target.trim_end_matches("/README.md").to_owned()).collect();
    let languages = ["README.md", "README"];
    links.retain(|target| !languages.contains(&&**target) && !target.is_empty());
    links.sort();
    links.dedup();
    links
}

/// The code in each row of each table.
fn tables(page: &Page) -> Vec<String> {
    let rows = prose(page).filter(|line| line.starts_with('|'));
    let codes = rows.map(|row| row.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    codes
        .map(|mut row| {
            row.sort();
            row.join(" ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_translation_that_lags_is_found_and_brought_up() {
        let original = Page::new("a/README.md", "```console\n$ a\nb\n```\n| `x` | [one](../b) |\n");
        let text = "```console\n$ a\nold\n```\n| `y` | [一](../c/README.zh-CN.md) |\n";
        let mut translation = Page::new("a/README.zh-CN.md", text);
        assert_eq!(follow(&mut translation, &original).len(), 3);
        assert_eq!(translation.lines[2], "b");
        let mut right = Page::new(
            "a/README.zh-CN.md",
            "```console\n$ a\nb\n```\n| `x` 一 | [一](../b/README.zh-CN.md#一) |\n",
        );
        assert_eq!(follow(&mut right, &original).len(), 0);
    }
}
