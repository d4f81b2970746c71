//! Nothing is forgotten: programs and their options are on a page, files begin with what they are for, the changelog has
//! the version.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use harness::Program;
use pages::programs::Programs;
use pages::workspace::OWN_BROKERS;

/// Options that every program has because the parser of command lines has them.
const OF_EVERY_PARSER: [&str; 2] = ["--help", "--version"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All Rust files of the workspace, from its root.
fn sources() -> Vec<PathBuf> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).expect("a folder of the workspace").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
                folders.push(folder.join(name));
            } else if name.ends_with(".rs") {
                files.push(folder.join(name));
            }
        }
    }
    files
}

/// The long options in a text, such as a help.
fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
}

#[test]
fn every_file_begins_with_what_it_is_for() {
    let files = sources();
    assert!(files.len() > 200, "only {} files found", files.len());
    let without: Vec<_> = files.iter().filter(|file| !read(file).starts_with("//! ")).collect();
    assert!(without.is_empty(), "without a first line //! …: {without:?}");
}

/// `cargo xtask test --quick` knows them by it.
#[test]
fn tests_that_start_brokers_are_in_a_module_or_a_program_that_says_so() {
    let (mut starting, mut elsewhere) = (0, Vec::new());
    for file in sources() {
        let path = file.to_string_lossy().into_owned();
        let Some((_, place)) = path.split_once("/tests/").filter(|_| path != file!()) else { continue };
        let text = read(&file);
        let Some(start) =
            ["Node::start", "Node::builder()"].iter().filter_map(|words| text.find(words)).min()
        else {
            continue;
        };
        starting += 1;
        let program = place.split(['/', '.']).next().unwrap_or_default();
        let said = OWN_BROKERS.contains(&program)
            || place.contains("/own_broker/")
            || text.find("\nmod own_broker {").is_some_and(|module| module < start);
        if !said {
            elsewhere.push(path);
        }
    }
    assert!(starting > 15, "only {starting} found");
    assert!(elsewhere.is_empty(), "not in mod own_broker: {elsewhere:?}");
}

#[test]
fn every_program_and_every_option_is_on_its_page() {
    env::set_current_dir(root()).unwrap();
    let programs = Programs::build_all().unwrap();
    let common = read("README.md");
    let (mut missing, mut seen) = (Vec::new(), 0);
    for (name, path) in programs.iter().filter(|(name, _)| !name.starts_with("example/")) {
        let package = &programs.get(name).unwrap().package;
        let page = ["", "tools/"].iter().map(|folder| format!("{folder}{package}/README.md"));
        let Some(page) = page.map(|page| root().join(page)).find(|page| page.exists()) else {
            // What is no pattern, and no tool with a page of its own, is on the first page or in docs.
            let named = common.contains(name)
                || fs::read_dir(root().join("docs")).unwrap().any(|page| {
                    fs::read_to_string(page.unwrap().path()).is_ok_and(|page| page.contains(name))
                });
            if !named {
                missing.push(format!("{name} is on no page"));
            }
            continue;
        };
        let page = read(page);
        if !page.contains(name) {
            missing.push(format!("{name} is not on the page of {package}"));
        }
        let help = Program::new(path).arg("--help").run().expect_code(0).stdout.join("\n");
        let (shown, everywhere) = (options(&page), options(&common));
        for option in options(&help).iter().filter(|option| !OF_EVERY_PARSER.contains(&option.as_str())) {
            seen += 1;
            if !shown.contains(option) && !everywhere.contains(option) {
                missing
                    .push(format!("{option} of {name} is neither on the page of {package} nor a common one"));
            }
        }
    }
    assert!(missing.is_empty(), "\n{}", missing.join("\n"));
    assert!(seen > 100, "only {seen} options found");
}

#[test]
fn the_changelog_has_the_version() {
    let manifest = read("Cargo.toml");
    let version =
        manifest.lines().find_map(|line| line.strip_prefix("version = ")).unwrap().trim_matches('"');
    let changelog = read("CHANGELOG.md");
    assert!(changelog.lines().any(|line| line.starts_with("## ") && line.contains(version)), "no {version}");
}
