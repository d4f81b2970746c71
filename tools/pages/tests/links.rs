//! The pages lead somewhere: their links, their anchors, and the programs that they tell to run.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

/// Far above what the pages hold if the search for them goes wrong.
const PAGES: usize = 10;

#[test]
fn every_link_and_every_command_in_the_pages_leads_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let workspace = Workspace::read(&root);
    assert!(workspace.pages.len() >= PAGES, "only {} pages found", workspace.pages.len());
    let problems = workspace.problems();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_leads_nowhere_is_found() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("links");
    let _ = fs::remove_dir_all(&root);
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("hello/Cargo.toml", "[package]\nname = \"hello\"\n[lints]\nworkspace = true\n");
    write("hello/src/bin/sender.rs", "");
    write("hello/src/bin/receiver.rs", "");
    write("hello/examples/ten.rs", "");
    write("tools/broker/Cargo.toml", "[package]\nname = \"broker\"\n[[bin]]\nname = \"extra\"\n");
    write("tools/broker/src/main.rs", "");
    write(
        "hello/README.md",
        "# Hello, `hello_world`: *one* [link](src)!\n## Twice\n### Twice\n## 中文，标题\n",
    );
    write("target/README.md", "[not a page](nowhere.md)");
    write(
        "good.md",
        r#"
[directory](hello) [file](hello/src/bin/sender.rs "title") [`code`](<hello/README.md>) ![image](/hello)
[head](hello#hello-hello_world-one-link) [second](hello/README.md#twice-1) [中文](hello/README.md#中文标题)
[text over
two lines](hello) [elsewhere](https://example.com/no#where) <a href="hello" id="here">h</a> [here](#here)
[reference]: hello/README.md#twice
`[code](nowhere)` ``[`code`](nowhere)``
```console
[code](nowhere)
# no-heading
$ cargo run -q -p hello --bin sender -- -p nowhere && cargo run -p broker --bin broker
$ cargo run -p hello --example ten
```
`cargo run`, `cargo run --release -p hello --bin=receiver`, (`cargo run --package=broker --bin extra`).
"#,
    );
    assert_eq!(Workspace::read(&root).problems(), [] as [&str; 0]);

    write(
        "docs/bad.md",
        r#"[a](nowhere.md)
[b](../hello/README.md#once) [c](#no-heading)
[`d`](../hello/src/bin/sender.rs#L1)
[e](../../../outside)
[f](../HELLO#twice)
[g]: nowhere
<img src="nowhere.png">
```sh
# no-heading
cargo run -p nobody --bin sender
```
`cargo run -p hello --bin nothing` and `cargo run -p hello`
`cargo run -p hello --example nothing`
text `unmatched [h](nowhere2)
"#,
    );
    let expected = [
        "docs/bad.md:1: nowhere.md: there is no such file",
        "docs/bad.md:2: ../hello/README.md#once: there is no such heading",
        "docs/bad.md:2: #no-heading: there is no such heading",
        "docs/bad.md:3: ../hello/src/bin/sender.rs#L1: only pages have headings",
        "docs/bad.md:4: ../../../outside: there is no such file",
        "docs/bad.md:5: ../HELLO#twice: there is no such file",
        "docs/bad.md:6: nowhere: there is no such file",
        "docs/bad.md:7: nowhere.png: there is no such file",
        "docs/bad.md:10: cargo run -p nobody: there is no such package",
        "docs/bad.md:12: cargo run -p hello --bin nothing: there is no such program",
        "docs/bad.md:12: cargo run -p hello: which of its programs?",
        "docs/bad.md:13: cargo run -p hello --example nothing: there is no such example",
        "docs/bad.md:14: nowhere2: there is no such file",
    ];
    assert_eq!(Workspace::read(&root).problems(), expected);
    fs::remove_dir_all(&root).unwrap();
}

/// What the pages say, and what is there.
struct Workspace {
    root: PathBuf,
    /// By path.
    pages: BTreeMap<PathBuf, Page>,
    /// By package.
    programs: HashMap<String, BTreeSet<String>>,
}

struct Page {
    text: String,
    /// Without what stands in code, where brackets make no links.
    prose: String,
    anchors: BTreeSet<String>,
}

impl Workspace {
    fn read(root: &Path) -> Self {
        let root = root.canonicalize().expect("the workspace exists");
        let mut workspace = Self { pages: BTreeMap::new(), programs: HashMap::new(), root };
        let mut directories = vec![workspace.root.clone()];
        while let Some(directory) = directories.pop() {
            for path in entries(&directory) {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if path.is_dir() && !["target", ".git", "node_modules"].contains(&&*name) {
                    directories.push(path);
                } else if name == "Cargo.toml" {
                    workspace.programs.extend(package(&path));
                } else if name.ends_with(".md") {
                    let page = Page::new(read(&path));
                    workspace.pages.insert(path, page);
                }
            }
        }
        workspace
    }

    /// Everything that leads nowhere, with its place.
    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (path, page) in &self.pages {
            let mut found = Vec::new();
            for (line, link) in links(&page.prose) {
                if let Err(why) = self.follow(path, page, link) {
                    found.push((line, format!("{link}: {why}")));
                }
            }
            for (number, line) in page.text.lines().enumerate() {
                for command in line.split("cargo run ").skip(1) {
                    if let Err(why) = self.find_program(command) {
                        found.push((number + 1, format!("cargo run {why}")));
                    }
                }
            }
            found.sort_by_key(|(line, _)| *line);
            let place = path.strip_prefix(&self.root).unwrap_or(path).display();
            problems.extend(found.iter().map(|(line, problem)| format!("{place}:{line}: {problem}")));
        }
        problems
    }

    fn follow(&self, from: &Path, page: &Page, link: &str) -> Result<(), &'static str> {
        if link.contains("://") || link.starts_with("mailto:") {
            return Ok(());
        }
        let (to, anchor) = link.split_once('#').map_or((link, None), |(to, anchor)| (to, Some(anchor)));
        let mut target = page;
        if !to.is_empty() {
            let to = match to.strip_prefix('/') {
                Some(to) => self.root.join(to),
                None => from.with_file_name("").join(to),
            };
            let inside = |path: &PathBuf| path.starts_with(&self.root);
            let path = to.canonicalize().ok().filter(inside).ok_or("there is no such file")?;
            if anchor.is_none() {
                return Ok(());
            }
            let path = if path.is_dir() { path.join("README.md") } else { path };
            target = self.pages.get(&path).ok_or("only pages have headings")?;
        }
        match anchor {
            Some(anchor) if !target.anchors.contains(anchor) => Err("there is no such heading"),
            _ => Ok(()),
        }
    }

    /// Looks for what is named after `cargo run`, up to the end of the code or the program's own arguments.
    fn find_program(&self, command: &str) -> Result<(), String> {
        let words = command.split(['`', '|', '&', ';']).next().unwrap_or_default();
        let words: Vec<_> = words.split_whitespace().take_while(|word| *word != "--").collect();
        let option = |names: &[&str]| {
            words.iter().enumerate().find_map(|(at, word)| match word.split_once('=') {
                Some((name, value)) if names.contains(&name) => Some(value),
                None if names.contains(word) => words.get(at + 1).copied(),
                _ => None,
            })
        };
        let Some(package) = option(&["-p", "--package"]) else { return Ok(()) };
        let programs = self.programs.get(package);
        let programs = programs.ok_or_else(|| format!("-p {package}: there is no such package"))?;
        if let Some(example) = option(&["--example"]) {
            let found = programs.contains(&format!("example/{example}"));
            return found
                .then_some(())
                .ok_or_else(|| format!("-p {package} --example {example}: there is no such example"));
        }
        match option(&["--bin"]) {
            Some(program) if !programs.contains(program) => {
                Err(format!("-p {package} --bin {program}: there is no such program"))
            }
            None if programs.iter().filter(|program| !program.starts_with("example/")).count() != 1 => {
                Err(format!("-p {package}: which of its programs?"))
            }
            _ => Ok(()),
        }
    }
}

impl Page {
    fn new(text: String) -> Self {
        let (mut unfenced, mut fence) = (String::new(), None);
        let (mut anchors, mut repeated) = (BTreeSet::new(), HashMap::new());
        for line in text.lines() {
            let start = line.trim_start();
            let ticks = ["```", "~~~"].into_iter().find(|ticks| start.starts_with(ticks));
            if fence.is_none() && ticks.is_none() {
                let heading = line.trim_start_matches('#');
                if (1..=6).contains(&(line.len() - heading.len())) && heading.starts_with(' ') {
                    let anchor = anchor(heading);
                    let count = repeated.entry(anchor.clone()).and_modify(|count| *count += 1).or_insert(0);
                    anchors.insert(if *count == 0 { anchor } else { format!("{anchor}-{count}") });
                }
                unfenced += line;
            } else if fence.is_none() {
                fence = ticks;
            } else if ticks == fence {
                fence = None;
            }
            unfenced.push('\n');
        }
        let prose = without_code(&unfenced);
        anchors.extend(attributes(&prose, "id").map(|(_, id)| id.to_owned()));
        Self { text, prose, anchors }
    }
}

/// The anchor that GitHub gives a heading: lower case, no punctuation, hyphens for spaces.
fn anchor(heading: &str) -> String {
    let mut text = heading.trim().to_lowercase();
    // Of a link, only its text is shown.
    while let Some((before, rest)) = text.split_once("](") {
        text = format!("{before}{}", rest.split_once(')').map_or("", |(_, after)| after));
    }
    let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    text.chars().filter(kept).map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Blanks out code within lines: what stands between two equal runs of backticks of one paragraph.
fn without_code(text: &str) -> String {
    let (mut prose, mut rest) = (String::new(), text);
    while let Some(start) = rest.find('`') {
        let (before, code) = rest.split_at(start);
        let length = code.len() - code.trim_start_matches('`').len();
        let (ticks, code) = code.split_at(length);
        prose += before;
        let paragraph = &code[..code.find("\n\n").unwrap_or(code.len())];
        let end = paragraph
            .match_indices(ticks)
            .map(|(at, _)| at)
            .find(|at| !paragraph[..*at].ends_with('`') && !paragraph[at + length..].starts_with('`'));
        rest = match end {
            Some(end) => {
                prose.extend(code[..end].chars().filter(|c| *c == '\n'));
                &code[end + length..]
            }
            None => code,
        };
    }
    prose + rest
}

/// All targets of links in a text, with their lines: `[…](target "title")`, `[…]: target`, `href`, `src`.
fn links(prose: &str) -> Vec<(usize, &str)> {
    let inline = prose.match_indices("](").map(|(at, _)| (at, target(&prose[at + 2..])));
    let mut links: Vec<_> = inline.map(|(at, link)| (line_at(prose, at), link)).collect();
    for (number, line) in prose.lines().enumerate() {
        if let Some((_, definition)) = line.split_once("]: ").filter(|(name, _)| name.starts_with('[')) {
            links.push((number + 1, target(definition.trim())));
        }
    }
    links.extend(attributes(prose, "href"));
    links.extend(attributes(prose, "src"));
    links
}

/// The target at the beginning of what follows `](`.
fn target(text: &str) -> &str {
    match text.strip_prefix('<') {
        Some(text) => text.split('>').next().unwrap_or_default(),
        None => text.split([' ', '\n', ')']).next().unwrap_or_default(),
    }
}

/// The values of an attribute in HTML, with their lines.
fn attributes<'p>(prose: &'p str, name: &str) -> impl Iterator<Item = (usize, &'p str)> {
    let start = format!(" {name}=\"");
    let found: Vec<_> = prose.match_indices(&start).map(|(at, start)| (at, at + start.len())).collect();
    found
        .into_iter()
        .map(|(at, value)| (line_at(prose, at), prose[value..].split('"').next().unwrap_or_default()))
}

fn line_at(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// The name of the package that a `Cargo.toml` describes, and its programs; none of a mere workspace.
fn package(manifest: &Path) -> Option<(String, BTreeSet<String>)> {
    let text = read(manifest);
    let (mut section, mut package, mut programs) = ("", None, BTreeSet::new());
    for line in text.lines() {
        if line.starts_with('[') {
            section = line.trim();
        }
        if let Some(name) = line.strip_prefix("name = ").map(|name| name.trim().trim_matches('"')) {
            match section {
                "[package]" => package = Some(name.to_owned()),
                "[[bin]]" => drop(programs.insert(name.to_owned())),
                _ => {}
            }
        }
    }
    let package = package?;
    let sources = manifest.with_file_name("src");
    if sources.join("main.rs").exists() {
        programs.insert(package.clone());
    }
    let names = entries(&sources.join("bin")).into_iter();
    programs.extend(names.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())));
    let examples = entries(&manifest.with_file_name("examples")).into_iter();
    programs.extend(examples.filter_map(|path| Some(format!("example/{}", path.file_stem()?.to_str()?))));
    Some((package, programs))
}

/// What is in a directory; nothing if there is none.
fn entries(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
