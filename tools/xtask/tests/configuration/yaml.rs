//! YAML as JSON, which is easier to ask.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use yaml_rust2::{Yaml, YamlLoader};

/// The top of the workspace.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A file of the workspace, as text.
pub(crate) fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The only document in a text; what a `*name` stands for is in its place.
pub(crate) fn parse(text: &str) -> Value {
    let documents = YamlLoader::load_from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    let [document] = &documents[..] else { panic!("{} documents in\n{text}", documents.len()) };
    value(document)
}

fn value(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::String(text) => json!(text),
        Yaml::Integer(number) => json!(number),
        Yaml::Real(number) => json!(number.parse::<f64>().unwrap()),
        Yaml::Boolean(truth) => json!(truth),
        Yaml::Null => Value::Null,
        Yaml::Array(items) => items.iter().map(value).collect(),
        Yaml::Hash(fields) => {
            let field =
                |(name, field): (&Yaml, &Yaml)| (name.as_str().expect("a name").to_owned(), value(field));
            Value::Object(fields.iter().map(field).collect::<Map<_, _>>())
        }
        Yaml::Alias(_) | Yaml::BadValue => panic!("an alias of nothing"),
    }
}
