//! `cargo xtask certs` writes what the page about TLS says, where it says.

use std::collections::BTreeSet;
use std::fs;

use harness::Program;

use crate::yaml::text;

#[test]
fn the_command_of_the_page_writes_the_files_that_it_lists() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("cert");
    let certs = |options: &[&str]| {
        Program::new(env!("CARGO_BIN_EXE_xtask")).args(["certs", "--folder"]).arg(&folder).args(options).run()
    };
    let end = certs(&[]).expect_code(0);
    let page = text("docs/tls.md");
    let block = page.split_once("\n$ cargo xtask certs\n").unwrap().1.split("\n```").next().unwrap();
    let expected: Vec<_> =
        block.lines().map(|line| line.replace("cert/", &format!("{}/", folder.display()))).collect();
    assert_eq!(end.stdout, expected);
    let names = |line: &String| line.split_once(".pem: ").map(|(path, _)| format!("{path}.pem"));
    let named: BTreeSet<_> = expected.iter().filter_map(names).collect();
    let written = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path().display().to_string());
    assert_eq!(written.collect::<BTreeSet<_>>(), named);

    let authority = fs::read(folder.join("ca_certificate.pem")).unwrap();
    let end = certs(&["--fault", "expired", "--days", "2"]).expect_code(0);
    assert!(end.stdout[1].ends_with(": the broker's, EXPIRED, to see it refused"), "{end}");
    assert_ne!(fs::read(folder.join("ca_certificate.pem")).unwrap(), authority);
    certs(&["--days", "0"]).expect_code(2);
    // Where the page has them by default, they are nobody's business.
    assert!(text(".gitignore").lines().any(|line| line == "/cert/"));
}
