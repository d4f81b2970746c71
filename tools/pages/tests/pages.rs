//! The pages are true: every command runs, every output is compared, every piece of code is that of the source.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use pages::programs::Programs;
use pages::{PLAYED_ELSEWHERE, Page, Stage, follow, not_run, problems, translations, update_excerpts};

/// Far above what is played if the search for pages or for their commands goes wrong.
const COMMANDS: usize = 100;

/// The version of RabbitMQ whose outputs the pages show: that of Debian 12. What differs from it is in docs/versions.md.
const SHOWN: &str = "3.10.";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

fn all() -> Vec<Page> {
    let pages = pages::all(&root()).expect("the pages can be read");
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
fn a_page_that_is_played_elsewhere_is_played() {
    for (page, test) in PLAYED_ELSEWHERE {
        let test = fs::read_to_string(root().join(test)).unwrap();
        assert!(test.contains(page), "{page} is not played by its test");
    }
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
    let pairs = translations(&pages);
    for page in &pages {
        let folder = page.path.parent().unwrap();
        // The first page, and the page of each crate that is not machinery.
        let translated = page.path.ends_with("README.md") && !folder.starts_with("tools");
        let has_one = pairs.iter().any(|(_, original)| original.is_some_and(|other| other.path == page.path));
        assert!(!translated || has_one, "{}: it has no README.zh-CN.md", page.path.display());
    }
    for (page, original) in pairs {
        let original = original.unwrap_or_else(|| panic!("{}: it translates no page", page.path.display()));
        expect_none(&follow(&mut page.clone(), original));
    }
}

/// The pages that break their broker have a node to themselves.
mod own_broker {
    use super::*;

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
        let found = found.into_inner().unwrap();
        let version =
            broker::node().get("/api/overview").unwrap()["rabbitmq_version"].as_str().unwrap().to_owned();
        if version.starts_with(SHOWN) {
            expect_none(&found);
        } else {
            println!(
                "the pages show RabbitMQ {SHOWN}, this is {version}, and they were played, but not compared:"
            );
            found.iter().for_each(|problem| println!("{problem}"));
        }
        let commands = commands.into_inner().unwrap();
        assert!(commands >= COMMANDS, "only {commands} commands found");
    }

    #[test]
    fn what_is_not_as_the_page_says_is_found() {
        env::set_current_dir(root()).unwrap();
        let programs = Programs::build_all().unwrap();
        let stage = Stage { node: broker::node(), programs: &programs };
        let receiver =
            "$ cargo run -p hello --bin receiver\n [*] Waiting for messages. To exit press CTRL+C\n";
        let sender = "```console\n$ cargo run -p hello --bin sender\n [x] Sent Hello World!\n```\n";
        let page = |receives: &str| {
            let page = Page::new("a.md", &format!("```console\n{receiver}{receives}```\n{sender}"));
            let played = stage.play(&page);
            assert_eq!(played.commands, 2);
            (played.problems.iter().map(|problem| problem.place.clone()).collect::<Vec<_>>(), played.page)
        };

        let (problems, _) = page("Received a message: Hello World!\n^C\n");
        assert_eq!(problems, [""; 0]);
        let (problems, corrected) = page("Received a message: Hello!\n^C\n");
        assert_eq!(problems, ["a.md:2"]);
        assert_eq!(corrected.lines[3], "Received a message: Hello World!");

        for (wrong, problem) in [
            // Another output, an output that is not there, one that is not shown.
            ("$ cargo run -p hello --bin sender\n [x] Sent Hello!", "- the page"),
            ("$ cargo run -p hello --bin sender\n [x] Sent Hello World!\nagain", "- again"),
            ("$ cargo run -p hello --bin sender", "+  [x] Sent Hello World!"),
            // An end that is none, a failure without an error, a program that is not there.
            (
                "$ cargo run -p hello --bin sender\n [x] Sent Hello World!\n^C\n```\n\
             ```console\n$ rabbitmqctl -q list_queues name\nname\nhello",
                "- ^C",
            ),
            ("$ false", "exit code 1"),
            ("$ cargo run -p hello --bin nothing", "no package has a program nothing"),
        ] {
            let played = stage.play(&Page::new("a.md", &format!("```console\n{wrong}\n```\n")));
            let text = played.problems.iter().map(ToString::to_string).collect::<String>();
            assert!(text.starts_with("a.md:2: ") && text.contains(problem), "{wrong}\n{text}");
        }
    }
}
