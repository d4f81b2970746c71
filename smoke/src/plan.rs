//! Which checks are run.

use std::collections::HashSet;

use shared::{Error, Result};

use crate::check::{Check, Profile};
use crate::checks;

/// The checks of a profile, or only some of them with all that those need, without others.
///
/// # Errors
/// [`Error::Usage`] for a word that is neither a check nor a group, or if nothing is left.
pub(crate) fn choose(profile: Profile, only: &[String], skip: &[String]) -> Result<Vec<&'static Check>> {
    for word in only.iter().chain(skip) {
        if !checks::all().any(|check| is_meant(check, word)) {
            return Err(Error::usage(format!("there is no check or group '{word}': see smoke --list")));
        }
    }
    let mut wanted: HashSet<_> = checks::all()
        .filter(|check| match only {
            [] => profile.has(check.group),
            _ => only.iter().any(|word| is_meant(check, word)),
        })
        .map(|check| check.name)
        .collect();
    let all: Vec<_> = checks::all().collect();
    // What a check needs comes before it, so one way back finds all.
    for check in all.iter().rev() {
        if wanted.contains(check.name) {
            wanted.extend(check.needs);
        }
    }
    let chosen = all.into_iter().filter(|check| wanted.contains(check.name));
    let chosen: Vec<_> = chosen.filter(|check| !skip.iter().any(|word| is_meant(check, word))).collect();
    if chosen.is_empty() {
        return Err(Error::usage("no check is left: see --only and --skip"));
    }
    Ok(chosen)
}

fn is_meant(check: &Check, word: &str) -> bool {
    check.name == word || check.group.to_string() == word
}

/// All checks, for a person.
pub(crate) fn list() -> String {
    let mut lines = vec![format!("{:<20} {:<11} {:<8} {}", "CHECK", "GROUP", "PROFILE", "WHAT IS TRIED")];
    for check in checks::all() {
        let profile = if Profile::Quick.has(check.group) { "quick" } else { "full" };
        lines.push(format!("{:<20} {:<11} {:<8} {}", check.name, check.group, profile, check.about));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(profile: Profile, only: &[&str], skip: &[&str]) -> Vec<&'static str> {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let chosen = choose(profile, &words(only), &words(skip)).unwrap();
        chosen.into_iter().map(|check| check.name).collect()
    }

    #[test]
    fn a_check_brings_what_it_needs() {
        assert_eq!(names(Profile::Full, &["login"], &[]), ["tcp", "broker", "login"]);
        assert_eq!(
            names(Profile::Quick, &["stream"], &[]),
            ["tcp", "broker", "login", "vhost", "queue", "publish", "stream"]
        );
        assert_eq!(names(Profile::Quick, &["connection"], &["tls", "queue"])[..2], ["tcp", "broker"]);
    }

    #[test]
    fn the_quick_profile_is_a_part_of_the_full_one() {
        let (quick, full) = (names(Profile::Quick, &[], &[]), names(Profile::Full, &[], &[]));
        assert!(quick.len() < full.len() && quick.iter().all(|name| full.contains(name)));
        assert!(quick.contains(&"hello") && !quick.contains(&"stream"));
        assert_eq!(names(Profile::Full, &[], &["features"]), quick);
    }

    #[test]
    fn unknown_words_and_empty_choices_are_wrong_usage() {
        for (only, skip, words) in [
            (&["helo"][..], &[][..], "'helo'"),
            (&[], &["helo"], "'helo'"),
            (&["tcp"], &["tcp"], "no check is left"),
        ] {
            let words_of = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
            let error = choose(Profile::Full, &words_of(only), &words_of(skip)).err().unwrap();
            assert!(matches!(&error, Error::Usage(line) if line.contains(words)), "{error}");
        }
    }
}
