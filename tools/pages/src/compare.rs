//! Compares what a page shows with what was printed.

use crate::differs::same_line;

/// Stands for any number of lines.
pub(crate) const ANY: &str = "…";

/// Whether the output is the one of the page.
pub(crate) fn same(page: &[String], seen: &[String]) -> bool {
    match page.split_first() {
        None => seen.is_empty(),
        Some((first, rest)) if first == ANY => (0..=seen.len()).any(|skipped| same(rest, &seen[skipped..])),
        Some((first, rest)) => {
            seen.split_first().is_some_and(|(line, seen)| same_line(first, line) && same(rest, seen))
        }
    }
}

/// What the page is to show: the output, with the page's own lines where they are the same, and its gaps.
pub(crate) fn updated(page: &[String], seen: &[String]) -> Vec<String> {
    if same(page, seen) {
        return page.to_vec();
    }
    if let Some(gap) = page.iter().position(|line| line == ANY) {
        let (before, after) = (gap, page.len() - gap - 1);
        if seen.len() > before + after {
            let mut shown = seen[..before].to_vec();
            shown.push(ANY.to_owned());
            shown.extend_from_slice(&seen[seen.len() - after..]);
            return shown;
        }
    }
    let steps = steps(page, seen);
    steps
        .into_iter()
        .filter_map(|step| match step {
            Step::Both(line) | Step::Seen(line) => Some(line.to_owned()),
            Step::Page(_) => None,
        })
        .collect()
}

/// Both outputs, line by line, for a person: `-` only on the page, `+` only printed.
pub(crate) fn difference(page: &[String], seen: &[String]) -> String {
    let lines = steps(page, seen).into_iter().map(|step| match step {
        Step::Both(line) => format!("      {line}\n"),
        Step::Page(line) => format!("    - {line}\n"),
        Step::Seen(line) => format!("    + {line}\n"),
    });
    lines.collect()
}

enum Step<'l> {
    Both(&'l str),
    Page(&'l str),
    Seen(&'l str),
}

/// The shortest way from one to the other, by the longest common subsequence.
fn steps<'l>(page: &'l [String], seen: &'l [String]) -> Vec<Step<'l>> {
    let mut common = vec![vec![0; seen.len() + 1]; page.len() + 1];
    for p in (0..page.len()).rev() {
        for s in (0..seen.len()).rev() {
            common[p][s] = if same_line(&page[p], &seen[s]) {
                common[p + 1][s + 1] + 1
            } else {
                common[p + 1][s].max(common[p][s + 1])
            };
        }
    }
    let (mut p, mut s, mut steps) = (0, 0, Vec::new());
    while p < page.len() || s < seen.len() {
        if p < page.len() && s < seen.len() && same_line(&page[p], &seen[s]) {
            steps.push(Step::Both(&page[p]));
            (p, s) = (p + 1, s + 1);
        } else if s == seen.len() || (p < page.len() && common[p + 1][s] >= common[p][s + 1]) {
            steps.push(Step::Page(&page[p]));
            p += 1;
        } else {
            steps.push(Step::Seen(&seen[s]));
            s += 1;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_gap_stands_for_any_lines() {
        for (page, seen, expected) in [
            ("a b", "a b", true),
            ("a", "a b", false),
            ("a b", "a", false),
            ("a … d", "a b c d", true),
            ("a … d", "a d", true),
            ("a … d", "a b", false),
            ("…", "", true),
        ] {
            assert_eq!(same(&lines(page), &lines(seen)), expected, "{page} {seen}");
        }
    }

    #[test]
    fn the_difference_shows_both() {
        let (page, seen) = (lines("a b c"), lines("a x c d"));
        assert_eq!(difference(&page, &seen), "      a\n    - b\n    + x\n      c\n    + d\n");
        assert_eq!(updated(&page, &seen), seen);
    }

    #[test]
    fn an_update_keeps_gaps_and_what_only_differs_from_run_to_run() {
        assert_eq!(updated(&lines("a … d"), &lines("x b c d")), lines("x … d"));
        let page = ["127.0.0.1:5672".to_owned(), "old".to_owned()];
        let seen = ["127.0.0.1:40000".to_owned(), "new".to_owned()];
        assert_eq!(updated(&page, &seen), ["127.0.0.1:5672", "new"]);
    }
}
