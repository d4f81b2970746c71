//! `cargo xtask docs`: runs the pages and compares what they show with what is printed; `--update` corrects them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use broker::Node;
use pages::{Page, Problem, Stage, follow, not_run, problems, translations, update_excerpts};

use crate::say::say;
use crate::workspace;

/// Runs these pages, or all.
pub(crate) fn docs(update: bool, only: &[PathBuf]) -> Result<ExitCode> {
    workspace::enter()?;
    let root = Path::new(".");
    let mut all = pages::all(root)?;
    let chosen = |page: &Page| only.is_empty() || only.iter().any(|path| page.path.starts_with(path));
    let (mut wrong, mut found) = (Vec::new(), 0);
    for page in all.iter_mut().filter(|page| chosen(page)) {
        wrong.extend(problems(page));
        found += 1;
        let old = update_excerpts(root, page);
        // Without a file to take it from, an excerpt cannot be corrected.
        wrong.extend(old.into_iter().filter(|problem| !update || !problem.text.contains("--update")));
    }
    ensure!(found > 0, "there is no such page: {only:?}");

    let originals: Vec<_> = all
        .iter()
        .filter(|page| chosen(page) && translations(&all).iter().all(|(other, _)| other.path != page.path))
        .cloned()
        .collect();
    let programs = pages::programs::Programs::build_all()?;
    say!("$ rabbitmq-server (private node)");
    let node = Node::start()?;
    let mut corrected = Vec::new();
    Stage { node: &node, programs: &programs }.play_all(&originals, |played| {
        let (path, seconds) = (played.page.path.display(), played.time.as_secs_f64());
        say!("{path}: {} commands, {} problems, {seconds:.1} s", played.commands, played.problems.len());
        let differs = |problem: &Problem| update && problem.text.contains("- the page, + printed");
        wrong.extend(played.problems.iter().filter(|problem| !differs(problem)).cloned());
        corrected.push(played.page);
    });
    for page in corrected {
        all.iter_mut().filter(|other| other.path == page.path).for_each(|other| *other = page.clone());
    }
    let english = all.clone();
    let pairs: Vec<_> =
        translations(&english).into_iter().map(|(page, original)| (page.path.clone(), original)).collect();
    for (path, original) in pairs {
        let page = all.iter_mut().find(|page| page.path == path && chosen(page));
        if let (Some(page), Some(original)) = (page, original) {
            let lags = follow(page, original);
            wrong
                .extend(lags.into_iter().filter(|problem| !update || !problem.text.starts_with("the block")));
        }
    }
    for block in originals.iter().flat_map(not_run) {
        say!("not run: {block}");
    }
    if update {
        for page in &all {
            if page.write(root)? {
                say!("written: {}", page.path.display());
            }
        }
    }
    for problem in &wrong {
        say!("{problem}");
    }
    say!("docs: {found} pages, {} problems", wrong.len());
    Ok(if wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
