//! The pages are true: every command runs, every output is compared, every piece of code is that of the source.

use std::env;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use pages::programs::Programs;
use pages::{Page, Stage, follow, not_run, problems, translations, update_excerpts};

/// Far above what is played if the search for pages or for their commands goes wrong.
const COMMANDS: usize = 100;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn all() -> Vec<Page> {
    let pages = pages::all(&root()).unwrap();
    assert!(pages.len() >= 15, "only {} pages found", pages.len());
    pages
}

fn expect_none(problems: &[pages::Problem]) {
    let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert!(
        problems.is_empty(),
        "\n{}\ncargo xtask docs --update corrects outputs and excerpts",
        problems.join("\n")
    );
}

#[test]
fn every_command_prints_what_the_page_shows() {
    env::set_current_dir(root()).unwrap();
    let originals: Vec<_> =
        all().into_iter().filter(|page| !page.path.to_string_lossy().ends_with(".zh-CN.md")).collect();
    let programs = Programs::build_all().unwrap();
    let (found, commands) = (Mutex::new(Vec::new()), Mutex::new(0));
    Stage { node: broker::node(), programs: &programs }.play_all(&originals, |played| {
        println!("{}: {} commands in {:.1?}", played.page.path.display(), played.commands, played.time);
        *commands.lock().unwrap() += played.commands;
        found.lock().unwrap().extend(played.problems);
    });
    for block in originals.iter().flat_map(not_run) {
        println!("not run: {block}");
    }
    expect_none(&found.into_inner().unwrap());
    let commands = commands.into_inner().unwrap();
    assert!(commands >= COMMANDS, "only {commands} commands found");
}

#[test]
fn every_block_is_run_or_says_why_not() {
    expect_none(&all().iter().flat_map(problems).collect::<Vec<_>>());
}

#[test]
fn every_piece_of_code_is_that_of_the_source() {
    expect_none(&all().iter_mut().flat_map(|page| update_excerpts(&root(), page)).collect::<Vec<_>>());
}

#[test]
fn a_translation_says_the_same_as_its_original() {
    let pages = all();
    for (page, original) in translations(&pages) {
        let original = original.unwrap_or_else(|| panic!("{}: it translates no page", page.path.display()));
        expect_none(&follow(&mut page.clone(), original));
    }
}
