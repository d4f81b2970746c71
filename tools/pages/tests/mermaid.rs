//! The pictures parse, with the real mermaid parser.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pages::Page;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace exists")
}

/// What the parser says of each text: `None` if it parses. `None` for all if there is no Node here to run it.
fn parse(texts: &[String]) -> Option<Vec<Option<String>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("mermaid");
    let mut node = Command::new("node");
    node.arg("check.mjs").current_dir(&folder).stdin(Stdio::piped()).stdout(Stdio::piped());
    if Command::new("node").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("not checked: the pictures need Node (nodejs and npm), which is not here");
        return None;
    }
    assert!(
        folder.join("node_modules/mermaid").exists(),
        "Node is here, the parser is not: cargo xtask test --install, or npm ci --ignore-scripts --prefix tools/pages/mermaid"
    );
    let mut node = node.spawn().expect("Node was there a moment ago");
    let texts = Value::from(texts).to_string();
    let written = node.stdin.take().expect("it is piped").write_all(texts.as_bytes());
    let output = node.wait_with_output().expect("it ends");
    written.expect("it reads its input");
    assert!(output.status.success(), "check.mjs: {}", output.status);
    let verdicts: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a list in JSON");
    Some(verdicts.iter().map(|verdict| verdict.as_str().map(str::to_owned)).collect())
}

#[test]
fn every_picture_parses() {
    let pages = pages::all(&root()).unwrap();
    let pictures = |page: &Page| {
        let blocks = page.blocks().into_iter().filter(|block| block.language() == "mermaid");
        let place = |line: usize| format!("{}:{}", page.path.display(), line + 1);
        blocks.map(|block| (place(block.start), page.content(&block).join("\n"))).collect::<Vec<_>>()
    };
    let (places, mut texts): (Vec<_>, Vec<_>) = pages.iter().flat_map(pictures).unzip();
    assert!(texts.len() >= 10, "only {} pictures found", texts.len());
    // So that a parser that takes anything is noticed.
    texts.push("flowchart LR\n    P((P)) --> Q[[hello".to_owned());
    let Some(verdicts) = parse(&texts) else { return };
    assert!(verdicts.last().unwrap().is_some(), "the parser takes a picture that is cut off");
    let wrong = places
        .iter()
        .zip(&verdicts)
        .filter_map(|(place, verdict)| Some(format!("{place}: {}", verdict.as_ref()?)));
    let wrong: Vec<_> = wrong.collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
