//! What a run against one version came to, kept so that the table can be made of runs at different times.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::version::{self, Version};

/// A column of the table.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// The broker's version, as it says.
    pub(crate) title: String,
    /// Where it comes from.
    pub(crate) system: String,
    /// When it was run: `2026-11-26`.
    pub(crate) date: String,
    /// How long it took.
    pub(crate) seconds: u64,
    /// From the top.
    pub(crate) cells: Vec<Cell>,
}

/// What one crate's tests, or the smoke run, came to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Cell {
    /// The crate, or a part of it.
    pub(crate) what: String,
    /// A few words: how many passed.
    pub(crate) passed: String,
    /// The tests that failed. Empty: none.
    pub(crate) failed: Vec<String>,
}

impl Record {
    /// Whether nothing failed.
    pub(crate) fn is_green(&self) -> bool {
        self.cells.iter().all(|cell| cell.failed.is_empty())
    }

    /// Of an earlier record the cells that this one has not, in their places.
    pub(crate) fn over(self, earlier: Record) -> Record {
        let mut cells = earlier.cells;
        for cell in self.cells {
            match cells.iter_mut().find(|earlier| earlier.what == cell.what) {
                Some(earlier) => *earlier = cell,
                None => cells.push(cell),
            }
        }
        Record { cells, seconds: earlier.seconds, ..self }
    }

    /// The last one of this version in `folder`.
    pub(crate) fn find(folder: &Path, version: &Version) -> Result<Option<Record>> {
        let file = folder.join(format!("{}.json", version.name));
        let Ok(text) = fs::read_to_string(&file) else { return Ok(None) };
        let record = Record::read(&text);
        record.map(Some).with_context(|| format!("{} is no record: delete it", file.display()))
    }

    /// Keeps it in `folder`.
    pub(crate) fn write(&self, folder: &Path, version: &Version) -> Result<()> {
        let cells: Vec<_> = self
            .cells
            .iter()
            .map(|cell| json!({"what": cell.what, "passed": cell.passed, "failed": cell.failed}))
            .collect();
        let record = json!({
            "title": self.title,
            "system": self.system,
            "date": self.date,
            "seconds": self.seconds,
            "cells": cells,
        });
        let file = folder.join(format!("{}.json", version.name));
        fs::write(&file, format!("{record:#}\n")).with_context(|| format!("cannot write {}", file.display()))
    }

    fn read(text: &str) -> Option<Record> {
        let value: Value = serde_json::from_str(text).ok()?;
        let text = |value: &Value, name: &str| value[name].as_str().map(str::to_owned);
        let cell = |value: &Value| {
            let failed = value["failed"].as_array()?.iter().map(|name| name.as_str().map(str::to_owned));
            Some(Cell {
                what: text(value, "what")?,
                passed: text(value, "passed")?,
                failed: failed.collect::<Option<_>>()?,
            })
        };
        Some(Record {
            title: text(&value, "title")?,
            system: text(&value, "system")?,
            date: text(&value, "date")?,
            seconds: value["seconds"].as_u64()?,
            cells: value["cells"].as_array()?.iter().map(cell).collect::<Option<_>>()?,
        })
    }
}

/// The records of all versions, or the names of those that there are none of.
pub(crate) fn read_all(folder: &Path) -> Result<Result<Vec<Record>, String>> {
    let (mut records, mut missing) = (Vec::new(), Vec::new());
    for version in version::ALL {
        match Record::find(folder, version)? {
            Some(record) => records.push(record),
            None => missing.push(version.name),
        }
    }
    Ok(if missing.is_empty() { Ok(records) } else { Err(missing.join(", ")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(title: &str) -> Record {
        let cell = |failed: &[&str]| Cell {
            what: "hello".to_owned(),
            passed: "3 passed".to_owned(),
            failed: failed.iter().map(ToString::to_string).collect(),
        };
        Record {
            title: title.to_owned(),
            system: "Debian 11".to_owned(),
            date: "2026-11-26".to_owned(),
            seconds: 7,
            cells: vec![cell(&[]), cell(&["a", "b"])],
        }
    }

    #[test]
    fn records_are_kept_and_missing_ones_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let (last, others) = version::ALL.split_last().unwrap();
        for version in others {
            record(version.name).write(folder.path(), version).unwrap();
        }
        assert_eq!(read_all(folder.path()).unwrap(), Err("4.3.6-strict".to_owned()));
        record(last.name).write(folder.path(), last).unwrap();
        let all = read_all(folder.path()).unwrap().unwrap();
        assert_eq!(all, version::ALL.iter().map(|version| record(version.name)).collect::<Vec<_>>());
        fs::write(folder.path().join("4.3.6-strict.json"), "{}").unwrap();
        assert!(read_all(folder.path()).unwrap_err().to_string().ends_with("is no record: delete it"));
    }

    #[test]
    fn single_cells_take_the_places_of_earlier_ones() {
        let [mut earlier, mut later] = [record("4.3.5"), record("4.3.6")];
        earlier.cells[1].what = "rpc".to_owned();
        later.cells = vec![later.cells.remove(0)];
        later.cells[0].passed = "4 passed".to_owned();
        let merged = later.over(earlier);
        let cells: Vec<_> = merged.cells.iter().map(|cell| (&*cell.what, &*cell.passed)).collect();
        assert_eq!((&*merged.title, cells), ("4.3.6", vec![("hello", "4 passed"), ("rpc", "3 passed")]));
    }

    #[test]
    fn one_failure_is_enough() {
        assert!(!record("").is_green());
        let mut green = record("");
        green.cells.pop();
        assert!(green.is_green());
    }
}
