//! The page of pitfalls names tests that exist, for all of its faults.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn every_pitfall_is_there_and_every_test_that_it_names_exists() {
    let crate_root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = include_str!("../pitfalls.md");
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| B")).collect();
    let numbers: BTreeSet<u32> =
        rows.iter().filter_map(|row| row.strip_prefix("| B")?.split_once(' ')?.0.parse().ok()).collect();
    assert_eq!(numbers, (1..=34).collect());
    assert_eq!(rows.len(), 34);

    let mut sources = String::new();
    for folder in ["../shared/src", "../shared/tests/shared", "tests"] {
        for file in fs::read_dir(crate_root.join(folder)).expect("the folder is part of the workspace") {
            let path = file.expect("a readable folder").path();
            if path.extension().is_some_and(|extension| extension == "rs") {
                sources += &fs::read_to_string(path).expect("a source file is text");
            }
        }
    }
    let mut tests = 0;
    for row in rows {
        // Code with this many underscores is a test's name.
        for name in row.split('`').skip(1).step_by(2).filter(|code| code.matches('_').count() >= 4) {
            assert!(sources.contains(&format!("fn {name}(")), "no test is called {name}");
            tests += 1;
        }
    }
    assert!(tests > 25, "only {tests} names of tests found");
}
